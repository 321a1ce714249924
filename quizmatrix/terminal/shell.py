"""A terminal in a cell that is booted for it: `quizmatrix shell`."""

from __future__ import annotations

import anyio

from quizmatrix.core.concurrency import Watch, task_group
from quizmatrix.core.errors import UsageError
from quizmatrix.core.text import clean_detail
from quizmatrix.model.options import ConductOptions, RunOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.task import in_each
from quizmatrix.prepare import selection
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.report import grid, progress
from quizmatrix.runs import directory
from quizmatrix.schedule.commandline import repeating_shell
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.planning import make_plan
from quizmatrix.schedule.scheduler import Scheduler
from quizmatrix.terminal.sessions import UserSession


def open_shell(options: RunOptions, command: list[str], watch: Watch) -> int:
    """Boot the one cell that the options select and open a terminal in it; the session's exit status.

    command: what runs in it instead of a shell, where there is one. watch: see Watch.
    """
    chosen = selection.selected_for(options, command)
    cells = chosen.cells
    if len(cells) != 1:
        raise UsageError(
            f"a terminal is in one cell, and `{','.join(options.selection.only)}` means {len(cells)}",
            next_step="Name one: quizmatrix shell 6.1-x86_64",
        )
    if chosen.taken is not None and chosen.taken.sentence:
        progress.tell(chosen.taken.sentence)
    user_session = UserSession(command, options.guest.user)
    plan = make_plan(
        options,
        in_each(cells, ["true"]),
        repeat=repeating_shell(options, command),
        session=user_session.open,
    )
    run_directory = directory.create(None, command)
    result, interrupted = anyio.run(_conduct, plan, run_directory, options.conduct, watch)
    status = user_session.status
    if status is None or result.outcome is Outcome.PANICKED:
        detail = f": {clean_detail(result.detail)}" if result.detail else ""
        # The terminal may be what has gone.
        progress.tell(f"{result.cell}: {grid.verdict_words(result)}{detail}")
    if status is None:
        status = grid.exit_status([result], interrupted=interrupted)
    run_directory.finish([result], status)
    return status


async def _conduct(
    plan: Plan, run_directory: directory.RunDirectory, conduct: ConductOptions, watch: Watch
) -> tuple[CellResult, bool]:
    preparer = Preparer(Policy.asked(conduct))
    scheduler = Scheduler(plan, run_directory, preparer, lambda _event: None)
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        scheduler.stop()

    async with task_group() as group:
        group.start_soon(watch, stop)
        (result,) = await scheduler.run()
        group.cancel_scope.cancel()
    return result, interrupted
