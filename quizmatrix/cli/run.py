"""`quizmatrix run`."""

from __future__ import annotations

import argparse
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
import anyio.to_thread
import msgspec

from quizmatrix import guest, paths, pivot, progress, report, scheduler, store
from quizmatrix.arch import Accelerator
from quizmatrix.cells import Cell, sharded
from quizmatrix.cli import EXIT_BROKEN_PIPE, again, selection
from quizmatrix.cli.again import Past
from quizmatrix.cli.cells import print_cells
from quizmatrix.cli.zfs import bring_up_to_date
from quizmatrix.errors import HostError, UsageError, host_error
from quizmatrix.events import CellNote
from quizmatrix.outcome import EXIT_INTERRUPTED, EXIT_NO_VERDICT, EXIT_OK, Outcome
from quizmatrix.prepare import Policy, Preparer
from quizmatrix.process import printable
from quizmatrix.progress import Progress
from quizmatrix.scheduler import Plan, Scheduler
from quizmatrix.spec import Bind, CellResult, to_json
from quizmatrix.store import RunStore
from quizmatrix.terminal import Sitting
from quizmatrix.text import clean_detail, clean_line, wants_colour
from quizmatrix.units import format_seconds

# Signals that ask the run to end: a Ctrl-C, a service manager, a terminal that was closed.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(args: argparse.Namespace) -> int:
    """Run COMMAND over the selected cells; the exit status of the run."""
    if not args.command and (args.last_failed or args.failed_first):
        args = again.with_last_command(args)
    if not args.command:
        example = args.matrix if args.matrix and not args.matrix.endswith(".toml") else "uname -a"
        raise UsageError(
            "there is no command to run",
            next_step=f"It comes after `--`: quizmatrix run --only 6.1-x86_64 -- {example}",
        )
    whole = selection.selected_cells(args, selection.limits_of(args))
    cells = sharded(whole, selection.checked("--shard", args.shard, selection.whole_number(1)))
    chosen = again.choose(args, cells)
    if args.shell and len(cells) != 1:
        raise UsageError(
            "-S opens a terminal in one cell",
            cause=f"{len(cells)} are selected",
            next_step="Name one: --only 6.1-x86_64",
        )
    plan = make_plan(args, chosen.cells, Sitting([], args.user) if args.shell else None)
    if args.json not in (None, "-") and not os.access(Path(args.json).absolute().parent, os.W_OK):
        raise UsageError(
            f"--json {args.json} cannot be written", next_step="Name a file in a folder of yours."
        )
    if args.dry_run:
        print_cells(chosen.cells, as_json=args.json == "-")
        if args.json != "-":
            print(f"\nin each: {clean_line(printable(args.command))}")
        return EXIT_OK
    if args.build:
        plan = msgspec.structs.replace(plan, unbuilt=bring_up_to_date(args, whole))
    past = Past()
    expected = past.expected_seconds(chosen.cells, args.command)
    plan = msgspec.structs.replace(plan, expected=expected, first=chosen.first)
    kind = again.kind_of(args)
    run_store = store.create(
        Path(args.output) if args.output else None,
        args.command,
        matrix=kind.matrix,
        current=kind.folder,
        arguments=args.arguments,
    )
    for place, result in chosen.earlier:
        run_store.refer_to(result, place / result.folder)
    earlier = [result for _, result in chosen.earlier]
    return _Runner(args, plan, run_store, past, [cell.id for cell in cells], earlier).run()


def make_plan(args: argparse.Namespace, cells: list[Cell], sitting: Sitting | None) -> Plan:
    """What the command line asks of the scheduler, checked."""
    layers = scheduler.check_layers([Path(layer) for layer in args.layer])
    standing = paths.standing_layer()
    if standing.is_dir():
        layers.insert(0, standing)
    return Plan(
        cells=cells,
        command=args.command or ["true"],
        jobs=selection.checked("-j", args.jobs, selection.whole_number(1)) if args.jobs else None,
        retries=selection.checked("--retries", args.retries, selection.whole_number(0)),
        fail_fast=args.fail_fast,
        layers=layers,
        work_tree=None if args.no_work_tree else guest.work_tree_of(_current_folder()),
        accelerator=None if args.accel == "auto" else Accelerator(args.accel),
        machine=_machine(args, cells),
        binds=[_bind(text) for text in args.bind],
        environment=dict(_setting(text) for text in args.env),
        user=args.user,
        session=sitting.take_place if sitting else None,
    )


def _bind(text: str) -> Bind:
    """Read HOST:GUEST[:ro]."""
    rest, mode = (text[:-3], "ro") if text.endswith(":ro") else (text.removesuffix(":rw"), "rw")
    host, colon, place = rest.rpartition(":")
    if not colon or not host or not place.startswith("/"):
        raise UsageError(f"--bind {text}", next_step="Write --bind HOST:GUEST[:ro], GUEST beginning with /.")
    if not Path(host).is_dir():
        raise UsageError(f"--bind {text}", cause=f"{host} is not a folder")
    clean = os.path.normpath(place)
    if (clean.count("/") == 1 and clean.strip("/") in ("", *guest.TAKEN)) or "\n" in clean:
        raise UsageError(
            f"--bind {text}", cause=f"{clean} is the guest's own", next_step="Bind it to a folder below."
        )
    return Bind(path=str(Path(host).absolute()), guest=clean, writable=mode == "rw")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"--env {text}", next_step="Write --env NAME=VALUE.")
    return name, value


def _machine(args: argparse.Namespace, cells: list[Cell]) -> str | None:
    machine: str | None = args.machine
    arches = {cell.arch for cell in cells}
    if machine is not None and len(arches) > 1:
        raise UsageError(
            f"--machine {machine} for {', '.join(sorted(arches))}",
            cause="no machine is of more than one architecture",
            next_step="Choose one with -a or --only.",
        )
    return machine


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise host_error("find the current folder", error) from error


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
                await anyio.to_thread.run_sync(write_all, data, abandon_on_cancel=True)
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
        run_store: RunStore,
        past: Past,
        order: list[str],
        earlier: list[CellResult],
    ) -> None:
        self._args = args
        self._plan = plan
        self._store = run_store
        self._past = past
        self._order = order
        self._earlier = earlier
        self._interrupted = False
        self._reader_is_gone = False
        self._began = time.monotonic()

    def run(self) -> int:
        """Run, report, and write everything."""
        shown = progress.choose(
            [cell.id for cell in self._plan.cells], quiet=self._args.quiet, verbose=self._args.verbose
        )
        results = self._past.with_luck(anyio.run(self._conduct, shown))
        for result in results:
            if result.flaky:
                self._store.write_cell(result.folder, result)
        # By what was run now. What was not run again has ended as expected.
        status = report.exit_status(results, interrupted=self._interrupted)
        if self._reader_is_gone and status == EXIT_NO_VERDICT:
            status = EXIT_BROKEN_PIPE
        results = again.merged(self._order, results, self._earlier)
        self._store.finish(results, status)
        self._past.record(self._store)
        self._report(results, status)
        troubles = [self._store.trouble, self._write_json()]
        for trouble in filter(None, troubles):
            progress.Screen(sys.stderr).print(f"quizmatrix: {trouble.render()}")
        if self._past.trouble is not None:
            again.tell(again.sentence(self._past.trouble))
        return status

    async def _conduct(self, shown: Progress) -> list[CellResult]:
        conductor = Scheduler(
            self._plan,
            self._store,
            Preparer(Policy(offline=self._args.offline, refresh=self._args.refresh)),
            shown.see,
        )
        if len(self._plan.cells) == 1 and not self._earlier and self._args.json != "-":

            def on_gone() -> None:
                self._reader_is_gone = True
                conductor.stop()

            conductor.pass_on(
                stdout=_pass_on_to(sys.stdout.fileno(), on_gone),
                stderr=_pass_on_to(sys.stderr.fileno(), on_gone),
            )
        async with anyio.create_task_group() as group:
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
        """Say it before a "not found" puzzles somebody: the command names a file that is not there."""
        try:
            here = Path.cwd()
        except OSError:  # a folder that was removed has no files to miss
            return
        if self._plan.work_tree is None and any(
            not word.startswith("/") and os.path.exists(here / word)  # noqa: PTH110 - any word at all
            for word in self._plan.command
            if word
        ):
            reason = "as asked for" if self._args.no_work_tree else "it cannot be, under that name"
            text = f"the current folder {here} is not shown to the guest, {reason}"
            shown.see(CellNote(cell=self._plan.cells[0].id, text=text))

    def _report(self, results: list[CellResult], status: int) -> None:
        """The grid; or of a single cell, what its own output does not say."""
        if len(results) == 1 and self._args.json != "-":
            self._report_one(results[0])
        elif not self._args.quiet or status != EXIT_OK or any(result.flaky for result in results):
            out = sys.stderr if self._args.json == "-" else sys.stdout
            seconds = time.monotonic() - self._began
            text = report.whole(results, self._store.folder, seconds, colour=wants_colour(out))
            progress.Screen(out).print(text.rstrip())

    def _report_one(self, result: CellResult) -> None:
        screen = progress.Screen(sys.stderr)
        plain = result.outcome in (Outcome.PASSED, Outcome.FAILED) and not result.detail and not result.flaky
        bad = pivot.bad_lines(result, self._store.folder)
        plain = plain and not bad
        if not plain:
            words = report.verdict_words(result)
            detail = "".join(f": {clean_detail(text)}" for text in (result.flaky, result.detail) if text)
            screen.print(f"quizmatrix: {result.cell}: {words}{detail}")
            if result.outcome in report.BY_CONSOLE:
                for line in report.evidence_lines(result, self._store.folder):
                    screen.print(f"    {line}")
            for line in bad:
                screen.print(f"    {line}")
        if result.release is not None and (self._args.verbose or not (plain or self._args.quiet)):
            screen.print(f"  logs: {self._store.folder / result.folder}/")
        if self._args.verbose:
            times = result.timings
            named = [("prepare", times.prepare), ("boot", times.boot), ("profiles", times.profiles)]
            named += [("command", times.command), ("total", times.total)]
            shown = [f"{name} {format_seconds(value)}" for name, value in named if value is not None]
            screen.print(f"  {result.release or result.kernel}: {', '.join(shown)}")
            if result.subtests:
                counts = ", ".join(f"{count} {outcome}" for outcome, count in result.subtests.items())
                screen.print(f"  tests: {counts}")

    def _write_json(self) -> HostError | None:
        """Write results.json where --json says; what kept it from that is no verdict on the cells."""
        if not self._args.json:
            return None
        data = to_json(self._store.results)
        try:
            if self._args.json == "-":
                sys.stdout.buffer.write(data)
            else:
                path = Path(self._args.json).resolve()
                if path.exists() and not path.is_file():
                    path.write_bytes(data)  # a pipe or a device is written to, not replaced
                else:
                    paths.write_atomic(path, data)
        except OSError as error:
            return host_error(f"write {self._args.json}", error)
        return None
