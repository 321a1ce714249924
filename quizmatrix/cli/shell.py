"""`quizmatrix shell`, and the terminal that `run -S` opens."""

from __future__ import annotations

import argparse
import sys

import anyio

from quizmatrix.cli.plan import make_plan
from quizmatrix.cli.run import watch_signals
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UsageError
from quizmatrix.core.text import clean_detail
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.task import in_each
from quizmatrix.prepare import selection
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.report import grid, progress
from quizmatrix.runs import directory
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from quizmatrix.terminal.sessions import Sitting


def shell(args: argparse.Namespace) -> int:
    """A terminal in one cell; the exit status of what ran in it."""
    words, args.command = args.command or [], None
    cells = selection.selected_cells(args, selection.limits_of(args))
    if len(cells) != 1:
        raise UsageError(
            f"a terminal is in one cell, and `{args.only[0]}` means {len(cells)}",
            next_step="Name one: quizmatrix shell 6.1-x86_64",
        )
    sitting = Sitting(words, args.user)
    plan = make_plan(args, in_each(cells, ["true"]), sitting)
    run_directory = directory.create(None, words)
    result, interrupted = anyio.run(_conduct, plan, run_directory, args)
    status = sitting.status
    if status is None or result.outcome is Outcome.PANICKED:
        detail = f": {clean_detail(result.detail)}" if result.detail else ""
        # The terminal may be what has gone.
        progress.Screen(sys.stderr).print(f"quizmatrix: {result.cell}: {grid.verdict_words(result)}{detail}")
    if status is None:
        status = grid.exit_status([result], interrupted=interrupted)
    run_directory.finish([result], status)
    return status


async def _conduct(
    plan: Plan, run_directory: directory.RunDirectory, args: argparse.Namespace
) -> tuple[CellResult, bool]:
    preparer = Preparer(Policy(offline=args.offline, refresh=args.refresh))
    conductor = Scheduler(plan, run_directory, preparer, lambda _event: None)
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        conductor.stop()

    async with task_group() as group:
        group.start_soon(watch_signals, stop)
        (result,) = await conductor.run()
        group.cancel_scope.cancel()
    return result, interrupted
