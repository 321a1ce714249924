"""Prepares a run from its options: selects cells, finds earlier runs, and opens the run directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from quizmatrix.build.uptodate import bring_up_to_date
from quizmatrix.core import later
from quizmatrix.core.concurrency import Watch
from quizmatrix.core.errors import UsageError
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_line
from quizmatrix.matrixrun import elsewhere
from quizmatrix.matrixrun.runner import Runner
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.options import ResultOptions, RunOptions, RunRequest, with_values
from quizmatrix.model.outcome import EXIT_OK
from quizmatrix.model.task import Task
from quizmatrix.prepare import selection
from quizmatrix.prepare.selection import Selection
from quizmatrix.report import outputs
from quizmatrix.report.progress import tell
from quizmatrix.report.runhistory import RunHistory, open_history
from quizmatrix.run import headstart
from quizmatrix.runs import directory, rerun, slices
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.rerun import Choice, ReadArguments
from quizmatrix.schedule import command_stdin, slicing
from quizmatrix.schedule.commandline import repeating
from quizmatrix.schedule.plan import MakeSession, Plan
from quizmatrix.schedule.planning import make_plan


def run(request: RunRequest, read: ReadArguments, watch: Watch) -> int:
    """Run a command over the selected cells, or the matrix's own handoff commands; returns the exit status.

    read: parses the command line of a run that an earlier quizmatrix made. watch: waits for signals, and
    calls its argument when the run has to stop.
    """
    began = time.monotonic()
    later.wanted("quizmatrix.subtests.reading", "quizmatrix.runs.history.record", "quizmatrix.report.ending")
    request = _with_earlier(request, read)
    options = request.options
    whole, tasks = selection.selected_tasks(options, request.command)
    session = _session(options, len(tasks)) if options.once.shell else None
    choice = _choose(request, tasks)
    if not choice.is_single:
        headstart.end()
    plan = make_plan(options, choice.tasks, session=session)
    outputs.check(options.results)
    elsewhere.check(options, plan)
    if options.results.coverage is not None:
        from quizmatrix.coverage import report

        report.check(options.results)
    _say_what_was_taken(whole, options.results, is_single=choice.is_single)
    if options.once.dry_run:
        _say_what_would_be_run(request, whole.handoff, choice.tasks)
        return EXIT_OK
    if options.results.output and not options.once.resume:
        directory.check_output(Path(options.results.output))
    history = RunHistory()
    left = plan.max_time and plan.max_time - (time.monotonic() - began)
    unbuilt = bring_up_to_date(options, whole.taken, whole.cells, request.command or [], left)
    plan = msgspec.structs.replace(
        plan,
        spent=time.monotonic() - began,
        unbuilt=unbuilt,
        matrix=str(whole.matrix.absolute()) if whole.handoff else None,
        expected=history.expected_seconds(choice.tasks, request.command or []),
        first=choice.first,
        test_seconds=history.test_seconds(request, choice.tasks),
    )
    run_directory = _open_directory(request, whole.handoff, choice)
    options, plan = _with_slices(options, plan, run_directory.folder)
    is_here = options.hosts.on is None
    source = command_stdin.own_source(request, is_single=choice.is_single and is_here)
    plan = command_stdin.with_stdin(options, plan, run_directory.folder, source)
    return Runner(request, plan, run_directory, history, choice, source, watch).run()


def _session(options: RunOptions, tasks: int) -> MakeSession:
    """Makes the terminal of -S. Raises UsageError where that would be in several cells."""
    if tasks != 1:
        raise UsageError(
            "-S opens a terminal in one cell",
            cause=f"{tasks} are selected",
            next_step="Name one: --only 6.1-x86_64",
        )
    from quizmatrix.terminal.sessions import UserSession

    return UserSession([], options.guest.user).open


def _say_what_was_taken(whole: Selection, options: ResultOptions, *, is_single: bool) -> None:
    """Say what the command was given. A single cell prints nothing of its own into a file or a pipe."""
    if whole.taken is None or not whole.taken.sentence or options.quiet:
        return
    if not is_single or options.verbose or sys.stderr.isatty():
        tell(clean_line(whole.taken.sentence))


def _with_earlier(request: RunRequest, read: ReadArguments) -> RunRequest:
    """The request, completed from an earlier run if --resume, --last-failed or --failed-first is given.

    `--shard auto` is replaced by a number.
    """
    request = _taking_over(request, read)
    return msgspec.structs.replace(request, options=slicing.with_number(request.options, request.command))


def _taking_over(request: RunRequest, read: ReadArguments) -> RunRequest:
    options = request.options
    if options.once.resume is not None:
        from quizmatrix.runs import resume

        return resume.with_its_command(request, read)
    matrix = options.selection.matrix
    if request.command or not (options.once.last_failed or options.once.failed_first):
        return request
    if matrix is not None and selection.hands_disks_on(matrix):
        return request  # such a matrix has its own commands
    return rerun.with_last_command(request, open_history(), read)


def _choose(request: RunRequest, tasks: list[Task]) -> Choice:
    if request.options.once.resume:
        from quizmatrix.runs import resume

        return resume.choose(request.options.once.resume, tasks)
    return rerun.choose(request, tasks, open_history, tell)


def _open_directory(request: RunRequest, handoff: Handoff | None, choice: Choice) -> RunDirectory:
    options = request.options
    if options.once.resume:
        from quizmatrix.runs import resume

        return resume.open_directory(options.once.resume, choice)
    kind = rerun.kind_of(request)
    run_directory = directory.create(
        Path(options.results.output) if options.results.output else None,
        kind.command,
        handoff,
        tasks=choice.order,
        matrix=kind.matrix,
        current=kind.folder,
        arguments=request.arguments,
        options=request.repeated or options,
    )
    for place, result in choice.earlier:
        run_directory.refer_to(result, place / result.folder)
    return run_directory


def _with_slices(options: RunOptions, plan: Plan, run: Path) -> tuple[RunOptions, Plan]:
    """Both, so that a slice that is repeated is dealt as in this run. run: the run directory."""
    if not any(task.cell.shard for task in plan.tasks):
        return options, plan
    slices.keep(run, plan.test_seconds)
    options = with_values(options, {"shard_like": directory.name_of(run)})
    return options, msgspec.structs.replace(plan, repeat=repeating(options))


def _say_what_would_be_run(request: RunRequest, handoff: Handoff | None, tasks: list[Task]) -> None:
    from quizmatrix.report.celltable import handoff_words, print_cells

    as_json = request.options.results.json == outputs.STDOUT
    print_cells(list({task.cell.id: task.cell for task in tasks}.values()), as_json=as_json)
    if not as_json:
        in_each_cell = f"in each: {clean_line(printable(request.command or []))}"
        print(f"\n{handoff_words(handoff, tasks) if handoff else in_each_cell}")
