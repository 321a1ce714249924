"""What `run` takes from earlier runs: what failed, what is flaky, how long cells take. It adds itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from quizmatrix.core.errors import HistoryError, UsageError
from quizmatrix.core.text import clean_line
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.task import Task, with_sources
from quizmatrix.prepare import selection
from quizmatrix.report import baseline
from quizmatrix.report.compare import Comparison
from quizmatrix.report.formats import Format
from quizmatrix.report.progress import tell
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.history.kept import RunKind
from quizmatrix.runs.history.record import History

T = TypeVar("T")

# Options that are of one run, and not taken over from the last one with its command.
OF_ONE_RUN = frozenset(
    {"output", "resume", *Format, "quiet", "verbose", "dry_run", "last_failed", "failed_first", "fail_fast"}
    | {"jobs", "max_time", "retries", "offline", "refresh", "shell", "fail_on", "on_finish"}
)


def kind_of(args: argparse.Namespace) -> RunKind:
    """What runs have in common with the one that this command line asks for."""
    matrix: str = args.matrix or selection.DEFAULT_MATRIX
    is_path = "/" in matrix or matrix.endswith(".toml")
    return RunKind(
        command=args.command or [],
        matrix=str(Path(matrix).absolute()) if is_path else matrix,
        folder=current_folder(),
    )


def current_folder() -> str:
    """The current folder as text, never resolved; empty where it is gone."""
    try:
        return os.getcwd()  # noqa: PTH109 - as text, and never resolved
    except OSError:
        return ""


def with_last_command(args: argparse.Namespace) -> argparse.Namespace:
    """The command line of the last run here, without COMMAND the one that --last-failed means.

    What is on this command line wins, and what is said of one run is not taken over. UsageError where
    there was no run here (of this MATRIX, where one is named).
    """
    history = History(tell)
    history.catch_up()
    here = current_folder()
    wanted = kind_of(args).matrix if args.matrix else None
    for results in history.runs():
        # A terminal's sessions are of no matrix. One that hands disks on has commands of its own.
        if results.matrix and results.folder == here and wanted in (None, results.matrix):
            break
    else:
        raise UsageError(
            "there is no earlier run whose command could be run again",
            cause=f"no run of {args.matrix or 'any matrix'} was started in {here}",
            next_step="Give the command after `--`.",
        )
    return as_run(args, results, OF_ONE_RUN)


def as_run(
    args: argparse.Namespace, results: RunResults, not_taken_over: frozenset[str]
) -> argparse.Namespace:
    """The command line of an earlier run. What is typed on this one wins; some options are not taken over."""
    from quizmatrix.cli.parser import parse, typed

    old = parse(["run", *results.arguments, *(["--", *results.command] if results.command else [])])
    given = typed(args)
    # Of options that exclude each other (--stdin, --no-stdin) the earlier run's gives way to the one typed.
    for group in args.parser._mutually_exclusive_groups:
        names = {action.dest for action in group._group_actions}
        given |= names if names & given else set()
    of_earlier = {action.dest for action in args.parser._actions} - not_taken_over - given
    for name, value in vars(args).items():
        # The next run without COMMAND means the same, too.
        if name not in of_earlier and name not in ("command", "arguments"):
            setattr(old, name, value)
    return old


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What is run of the selected tasks. order: the ids of all that will have results. first: of those that
    start first. earlier: the results of those that are not run again, each with the directory of its run.
    is_resumed: whether that is this run itself.
    """

    tasks: list[Task]
    order: list[str]
    first: frozenset[str] = frozenset()
    earlier: list[tuple[Path, CellResult]] = []
    is_resumed: bool = False

    def merged(self, now: list[CellResult]) -> list[CellResult]:
        """The results of what was run and of what was not, in the order of the selected tasks."""
        found = {result.cell: result for result in [*(result for _, result in self.earlier), *now]}
        return [found[one] for one in self.order if one in found]


def choose(args: argparse.Namespace, tasks: list[Task]) -> Again:
    """What --last-failed and --failed-first leave of `tasks`, or put first.

    Of each its last result in a run of the same command, matrix and folder counts. Where none failed, or
    there was no such run, all are run, as pytest does. What made the disks of one that failed is run with it.
    HistoryError where that cannot be known.
    """
    order = [task.id for task in tasks]
    if not (args.last_failed or args.failed_first):
        return Again(tasks=tasks, order=order)
    history = History(tell)
    history.catch_up()
    known = history.latest(kind_of(args))
    before = [known[one] for one in order if one in known]
    failed = with_sources(tasks, {result.cell for _, _, result in before if not result.is_as_expected})
    if not failed:
        why = "none of these cells failed last" if before else "there is no earlier run of these cells"
        tell(f"{why}: all are run")
        return Again(tasks=tasks, order=order)
    if not args.last_failed:
        return Again(tasks=tasks, order=order, first=failed)
    return Again(
        tasks=[task for task in tasks if task.id in failed],
        order=[one for one in order if one in failed or one in known],
        earlier=[
            (place, msgspec.structs.replace(result, earlier=run))
            for place, run, result in before
            if result.cell not in failed
        ],
    )


class RunHistory:
    """The history, as a run needs it: what goes wrong with it is told at the end and no fault of the run."""

    def __init__(self) -> None:
        """Nothing is opened before it is asked for."""
        self._history = History(tell)
        self.error: HistoryError | None = None

    def expected_seconds(self, tasks: list[Task], command: list[str]) -> dict[str, float]:
        """See History.expected_seconds. A single task needs no order."""
        if len(tasks) < 2:
            return {}
        ids = [task.id for task in tasks]
        return self._try(lambda: self._history.expected_seconds(ids, command), {})

    def mark_flaky(self, results: list[CellResult]) -> list[CellResult]:
        """See History.mark_flaky."""
        return self._try(lambda: self._history.mark_flaky(results), results)

    def since_last(self, results: RunResults, place: Path) -> Comparison | None:
        """See baseline.since_last."""
        return self._try(lambda: baseline.since_last(self._history, results, place), None)

    def record(self, run_directory: RunDirectory) -> None:
        """Keep the run that has ended."""
        results: RunResults = run_directory.results
        # What was stopped before anything had ended tells nothing.
        if any(result.outcome is not Outcome.CANCELLED for result in results.cells):
            self._try(lambda: self._history.record(run_directory.folder, results), None)

    def _try(self, action: Callable[[], T], otherwise: T) -> T:
        if self.error is None:
            try:
                return action()
            except HistoryError as error:
                self.error = error
        return otherwise


def sentence(error: HistoryError) -> str:
    """What is said of a history that cannot be used."""
    return clean_line(f"{error}. {error.next_step}".rstrip(". ") + ".", 1000)
