"""`quizmatrix run`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import msgspec

from quizmatrix.build.module import hint
from quizmatrix.cli import EXIT_BROKEN_PIPE, again, command_stdin, resume
from quizmatrix.cli.again import Again, RunHistory
from quizmatrix.cli.cells import handoff_words, print_cells
from quizmatrix.cli.plan import make_plan, tasks_of
from quizmatrix.cli.zfs import bring_up_to_date
from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import HostError, QuizmatrixError, UsageError
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_detail, clean_line, wants_colour
from quizmatrix.core.units import format_seconds
from quizmatrix.matrixrun import hook
from quizmatrix.model.cells import unsharded
from quizmatrix.model.events import CellNote
from quizmatrix.model.matrix import Handoff, shipped_matrices
from quizmatrix.model.outcome import EXIT_INTERRUPTED, EXIT_NO_VERDICT, EXIT_OK, Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.task import Task
from quizmatrix.prepare import currentfolder, selection
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.selection import Selection
from quizmatrix.report import findings, grid, news, outputs, progress, testtable
from quizmatrix.report.compare import Comparison
from quizmatrix.report.formats.source import ReportSource
from quizmatrix.report.formats.source import load as load_source
from quizmatrix.report.progress import Progress
from quizmatrix.run import runlayer
from quizmatrix.run.stdin import OwnSource
from quizmatrix.runs import directory
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from quizmatrix.terminal.sessions import Sitting

# Signals that ask the run to end: a Ctrl-C, a service manager, a terminal that was closed.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(args: argparse.Namespace) -> int:
    """Run COMMAND over the selected cells, or what their matrix hands on; the exit status of the run."""
    began = time.monotonic()
    if args.resume is not None:
        args = resume.with_its_command(args)
    elif (args.last_failed or args.failed_first) and not args.command and not _hands_disks_on(args):
        args = again.with_last_command(args)
    whole, tasks = selected_tasks(args)
    if args.shell and len(tasks) != 1:
        raise UsageError(
            "-S opens a terminal in one cell",
            cause=f"{len(tasks)} are selected",
            next_step="Name one: --only 6.1-x86_64",
        )
    chosen = resume.choose(args.resume, tasks) if args.resume else again.choose(args, tasks)
    plan = make_plan(args, chosen.tasks, Sitting([], args.user) if args.shell else None)
    outputs.check(args)
    if args.dry_run:
        _say_what_would_be_run(args, whole.handoff, chosen.tasks)
        return EXIT_OK
    if args.output and not args.resume:
        directory.check_output(Path(args.output))
    past = RunHistory()
    unbuilt = {}
    if args.build:
        left = plan.max_time and plan.max_time - (time.monotonic() - began)
        unbuilt = bring_up_to_date(args, unsharded(whole.cells), left)
    plan = msgspec.structs.replace(
        plan,
        spent=time.monotonic() - began,
        unbuilt=unbuilt,
        matrix=str(whole.matrix.absolute()) if whole.handoff else None,
        expected=past.expected_seconds(chosen.tasks, args.command or []),
        first=chosen.first,
    )
    run_directory = (
        resume.open_directory(args.resume, chosen)
        if args.resume
        else _new_directory(args, whole.handoff, chosen)
    )
    source = command_stdin.own_source(args, chosen)
    plan = command_stdin.with_stdin(args, plan, run_directory.folder, source)
    return _Runner(args, plan, run_directory, past, chosen, source).run()


def selected_tasks(args: argparse.Namespace) -> tuple[Selection, list[Task]]:
    """The cells that a command line means, and what is run in each; UsageError where that is nothing."""
    if not args.command and (_is_program(args.matrix) or not selection.hands_disks_on(args.matrix)):
        is_matrix = args.matrix and (args.matrix.endswith(".toml") or args.matrix in shipped_matrices())
        example = (
            f"{args.matrix} -- uname -a" if is_matrix else f"--only 6.1-x86_64 -- {args.matrix or 'uname -a'}"
        )
        raise UsageError(
            "there is no command to run", next_step=f"It comes after `--`: quizmatrix run {example}"
        )
    whole = selection.selected_slices(args, selection.limits_of(args))
    return whole, tasks_of(whole, args.command)


def _is_program(word: str | None) -> bool:
    """Whether what stands in MATRIX's place is a program: `quizmatrix run ./repro.sh`."""
    return (
        word is not None and not word.endswith(".toml") and Path(word).is_file() and os.access(word, os.X_OK)
    )


def _new_directory(args: argparse.Namespace, handoff: Handoff | None, chosen: Again) -> RunDirectory:
    kind = again.kind_of(args)
    run_directory = directory.create(
        Path(args.output) if args.output else None,
        kind.command,
        handoff,
        tasks=chosen.order,
        matrix=kind.matrix,
        current=kind.folder,
        arguments=args.arguments,
    )
    for place, result in chosen.earlier:
        run_directory.refer_to(result, place / result.folder)
    return run_directory


def _hands_disks_on(args: argparse.Namespace) -> bool:
    """Whether the command line names a matrix that has commands of its own."""
    return args.matrix is not None and selection.hands_disks_on(args.matrix)


def _say_what_would_be_run(args: argparse.Namespace, handoff: Handoff | None, tasks: list[Task]) -> None:
    print_cells(list({task.cell.id: task.cell for task in tasks}.values()), as_json=args.json == "-")
    if args.json != "-":
        in_each_cell = f"in each: {clean_line(printable(args.command or []))}"
        print(f"\n{handoff_words(handoff, tasks) if handoff else in_each_cell}")


def _pass_on_to(descriptor: int, on_gone: Callable[[], None]) -> Callable[[bytes], Awaitable[None]]:
    """Writes to one of our own streams; `on_gone` is called where nobody reads it any more."""
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write_all(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # whoever gave us this stream has made it so
                select.select([], [descriptor], [])

    async def write(data: bytes) -> None:
        try:
            if is_file:
                write_all(data)
            else:
                # In a thread: while nobody reads, the rest of the run, Ctrl-C included, goes on.
                await in_thread(lambda: write_all(data))
        except OSError as error:
            # EIO: the terminal is gone.
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            on_gone()

    return write


async def watch_signals(stop: Callable[[], None]) -> None:
    """The first signal stops the VMs, the second leaves at once (they die with us)."""
    # Somebody who started us with nohup wants no end at a hang-up.
    wanted = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    stopping = False
    with anyio.open_signal_receiver(*wanted) as signals:
        async for _ in signals:
            if stopping:
                if sys.stderr.isatty():
                    os.write(sys.stderr.fileno(), b"\x1b[?25h")  # the live table hid the cursor
                os._exit(EXIT_INTERRUPTED)
            stopping = True
            stop()


class _Runner:
    """One run, from its plan to its exit status."""

    def __init__(
        self,
        args: argparse.Namespace,
        plan: Plan,
        run_directory: RunDirectory,
        past: RunHistory,
        chosen: Again,
        source: OwnSource | None,
    ) -> None:
        self._source = source
        self._args = args
        self._plan = plan
        self._directory = run_directory
        self._stdout_is_taken = outputs.take_stdout(args)
        # Whether a single cell behaves as a local command: at night only what changed is said of one, too.
        self._is_local = not (self._stdout_is_taken or args.unattended)
        self._past = past
        self._chosen = chosen
        self._news: Comparison | None = None
        self._interrupted = False
        self._reader_is_gone = False
        self._began = time.monotonic()

    def run(self) -> int:
        """Run, report, and write everything."""
        shown = progress.choose(
            [task.id for task in self._plan.tasks], quiet=self._args.quiet, verbose=self._args.verbose
        )
        results = self._past.mark_flaky(anyio.run(self._conduct, shown))
        for result in results:
            if result.flaky:
                self._directory.revise(result)
        # By what was run now. What was not run again has ended as expected.
        judged = self._chosen.merged(results) if self._chosen.is_resumed else results
        status = grid.exit_status(judged, interrupted=self._interrupted)
        results = self._chosen.merged(results)
        if news.needs_last(self._args):
            now = msgspec.structs.replace(self._directory.results, cells=results)
            self._news = self._past.since_last(now, self._directory.folder)
        if not self._interrupted and news.forgives(self._args):
            status = news.status_of_news(status, self._news, judged)
        if self._reader_is_gone and status == EXIT_NO_VERDICT:
            status = EXIT_BROKEN_PIPE
        self._directory.finish(results, status)
        self._past.record(self._directory)
        try:
            self._write_everything(results, status)
        finally:  # also where nobody reads our output any more
            if self._args.on_finish is not None:
                hook.hand_on(self._args.on_finish, self._directory.results, self._directory.folder)
        return status

    def _write_everything(self, results: list[CellResult], status: int) -> None:
        self._report(results, status)
        errors = [self._directory.error, *self._write_reports()]
        for error in filter(None, errors):
            progress.Screen(sys.stderr).print(f"quizmatrix: {error.render()}")
        if self._past.error is not None:
            progress.tell(again.sentence(self._past.error))

    async def _conduct(self, shown: Progress) -> list[CellResult]:
        conductor = Scheduler(
            self._plan,
            self._directory,
            Preparer(Policy(offline=self._args.offline, refresh=self._args.refresh)),
            shown.see,
        )
        if len(self._plan.tasks) == 1 and not self._chosen.earlier and self._is_local:

            def on_gone() -> None:
                self._reader_is_gone = True
                conductor.stop()

            conductor.pass_on(
                stdout=_pass_on_to(sys.stdout.fileno(), on_gone),
                stderr=_pass_on_to(sys.stderr.fileno(), on_gone),
            )
        if self._source is not None:
            conductor.take_stdin(self._source)
        async with task_group() as group:
            group.start_soon(watch_signals, lambda: self._interrupt(conductor))
            group.start_soon(shown.keep)
            self._warn_of_what_the_guest_lacks(shown)
            results = await conductor.run()
            group.cancel_scope.cancel()
        return results

    def _interrupt(self, conductor: Scheduler) -> None:
        self._interrupted = True
        conductor.stop()

    def _warn_of_what_the_guest_lacks(self, shown: Progress) -> None:
        """Say before a "not found" puzzles somebody which file or module of the command is not there."""
        try:
            here = Path.cwd()
        except OSError:  # a folder that was removed has no files to miss
            here = None
        tasks = self._plan.tasks
        if not tasks:
            return  # all had ended before the run was cut short
        if (
            here is not None
            and self._plan.work_tree is None
            and currentfolder.is_meant(here, tasks[0].command, is_hidden=self._args.no_work_tree)
        ):
            reason = "as asked for" if self._args.no_work_tree else runlayer.why_not_shown(here)
            text = f"the current folder {here} is not shown to the guest, {reason}"
            shown.see(CellNote(cell=tasks[0].id, text=text))
        missed = hint.elsewhere([task.cell for task in tasks], tasks[0].command)
        if missed is not None:
            # Of several cells it is a word on the whole run.
            shown.see(CellNote(cell=tasks[0].id if len(tasks) == 1 else "", text=missed))

    def _report(self, results: list[CellResult], status: int) -> None:
        """The grid; or of a single cell, what its own output does not say."""
        if len(results) == 1 and self._is_local:
            self._report_one(results[0])
        elif self._args.quiet and self._news is not None:
            out = sys.stderr if self._stdout_is_taken else sys.stdout
            text = news.words_of_news(self._news, self._directory, colour=wants_colour(out))
            if text:
                progress.Screen(out).print(text)
        elif not self._args.quiet or status != EXIT_OK or any(result.flaky for result in results):
            out = sys.stderr if self._stdout_is_taken else sys.stdout
            seconds = time.monotonic() - self._began
            text = grid.whole(results, self._directory.folder, seconds, colour=wants_colour(out))
            progress.Screen(out).print(text.rstrip())
            if any(result.outcome is Outcome.CANCELLED for result in results):
                progress.Screen(out).print(
                    f"to go on: quizmatrix run --resume {directory.name_of(self._directory.folder)}"
                )
            if self._args.verbose and (known := findings.allowed(results)):
                progress.Screen(out).print(known)

    def _report_one(self, result: CellResult) -> None:
        screen = progress.Screen(sys.stderr)
        plain = result.outcome in (Outcome.PASSED, Outcome.FAILED) and not result.detail and not result.flaky
        bad = testtable.bad_lines(result, self._directory.folder)
        found = findings.other_paragraphs([result], self._directory.folder)
        plain = plain and not bad and not found
        if not plain:
            words = grid.verdict_words(result)
            detail = "".join(f": {clean_detail(text)}" for text in (result.flaky, result.detail) if text)
            screen.print(f"quizmatrix: {result.cell}: {words}{detail}")
            if result.outcome in grid.BY_CONSOLE:
                for line in grid.evidence_lines(result, self._directory.folder):
                    screen.print(f"    {line}")
            elif found:
                screen.print(found)
            for line in bad:
                screen.print(f"    {line}")
        if result.release is not None and (self._args.verbose or not (plain or self._args.quiet)):
            screen.print(f"  logs: {self._directory.folder / result.folder}/")
        if self._args.verbose:
            times = result.timings
            named = [("prepare", times.prepare), ("boot", times.boot), ("profiles", times.profiles)]
            named += [("command", times.command), ("total", times.total)]
            shown = [f"{name} {format_seconds(value)}" for name, value in named if value is not None]
            screen.print(f"  {result.release or result.kernel}: {', '.join(shown)}")
            if known := findings.allowed([result]):
                screen.print(f"  {known}")
            if result.subtests:
                counts = ", ".join(f"{count} {outcome}" for outcome, count in result.subtests.items())
                screen.print(f"  tests: {counts}")

    def _write_reports(self) -> list[HostError]:
        """Write what was asked for; what kept any of it from that is no verdict on the cells."""
        folder, source = self._directory.folder, None
        if self._directory.error is None:
            with contextlib.suppress(QuizmatrixError):
                source = load_source(folder)
        # A full disk, or a folder that was removed meanwhile: what is known without it.
        source = source or ReportSource(folder=folder, results=self._directory.results)
        errors = outputs.write(self._args, source)
        summary_error = outputs.add_to_job_summary(source)
        return errors + ([summary_error] if summary_error else [])
