"""`quizmatrix shell`, and the terminal that `run -S` opens."""

from __future__ import annotations

import argparse
import sys

import anyio

from quizmatrix import progress, report, store
from quizmatrix.cli import selection
from quizmatrix.cli.plan import make_plan
from quizmatrix.cli.run import watch_signals
from quizmatrix.concurrency import task_group
from quizmatrix.errors import UsageError
from quizmatrix.outcome import Outcome
from quizmatrix.plan import Plan
from quizmatrix.prepare import Policy, Preparer
from quizmatrix.scheduler import Scheduler
from quizmatrix.spec import CellResult
from quizmatrix.task import in_each
from quizmatrix.terminal import Sitting
from quizmatrix.text import clean_detail


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
    run_store = store.create(None, words)
    result, interrupted = anyio.run(_conduct, plan, run_store, args)
    status = sitting.status
    if status is None or result.outcome is Outcome.PANICKED:
        detail = f": {clean_detail(result.detail)}" if result.detail else ""
        # The terminal may be what has gone.
        progress.Screen(sys.stderr).print(
            f"quizmatrix: {result.cell}: {report.verdict_words(result)}{detail}"
        )
    if status is None:
        status = report.exit_status([result], interrupted=interrupted)
    run_store.finish([result], status)
    return status


async def _conduct(
    plan: Plan, run_store: store.RunStore, args: argparse.Namespace
) -> tuple[CellResult, bool]:
    preparer = Preparer(Policy(offline=args.offline, refresh=args.refresh))
    conductor = Scheduler(plan, run_store, preparer, lambda _event: None)
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
