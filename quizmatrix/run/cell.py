"""Runs one cell: one function takes its specification and returns its result, without shared state."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from quizmatrix.core.errors import host_error
from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.model.start import StartKind
from quizmatrix.run import foreign, qemu, runlayer, template, vm
from quizmatrix.run.boot import Boot
from quizmatrix.run.cellfolder import host_folder_of
from quizmatrix.run.observer import NOBODY, Observer
from quizmatrix.run.start import COLD, Start, starting
from quizmatrix.run.verdict import judge


async def run_cell(spec: CellSpec, observer: Observer = NOBODY) -> CellResult:
    """Boot a cell's guest, run its command, and decide the outcome.

    Writes console.log, stdout, stderr, qemu.log, reproduce.sh, artifacts/, subtests.json, running.log and
    findings.json into `spec.files.folder`. Everything that happens to the guest becomes an outcome. Raises
    QuizmatrixError if this host cannot do its part.
    """
    started = time.monotonic()
    marker = os.urandom(16).hex()
    shares = _write_files(spec, marker)
    with _tidied(Path(spec.files.folder)):
        if not spec.machine.kernel.has_9p:
            from quizmatrix.run import layerdisks

            spec, shares = await layerdisks.convert(spec, shares), []
        boot, start = await _boot_warm_or_cold(spec, shares, marker, observer)
    if spec.machine.debugger:
        from quizmatrix.run import debugger

        debugger.remove_socket(spec)
    found = await boot.keep_findings()
    program = foreign.failed_program(spec, boot.evidence.ended)
    boot.evidence.foreign = program.sentence if program else ""
    return _result_of(spec, boot, found, program, time.monotonic() - started, start)


@contextmanager
def _tidied(folder: Path) -> Iterator[None]:
    """If the block raises, remove what is not to stay in a cell's folder, such as secrets."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            runlayer.clean_run_layer(folder)
        shutil.rmtree(host_folder_of(folder), ignore_errors=True)
        raise


async def _boot_warm_or_cold(
    spec: CellSpec, shares: list[Share], marker: str, observer: Observer
) -> tuple[Boot, StartKind]:
    """Restore the guest if it can be, else boot it, to its end."""
    async with starting(spec, shares) as start:
        if start.note:
            observer.note(f"cold: {start.note}")
        boot = await _boot(spec, shares, marker, observer, start)
        if boot.conversation.no_answer and boot.conversation.had_head_start:
            # That may have been the reason, and the template is intact.
            boot = await _boot(spec, shares, marker, observer, start)
        why = boot.conversation.no_answer
        if start.saving is not None and start.saving.error:
            observer.note(f"it is not kept as a template: {start.saving.error}")
    if why and start.template is not None:
        template.drop(start.template.key)
        start = COLD
        boot = await _boot(spec, shares, marker, observer, start)
        boot.evidence.notes.append(f"it was restored and did not answer ({why}), so it was booted")
    return boot, start.kind


async def _boot(spec: CellSpec, shares: list[Share], marker: str, observer: Observer, start: Start) -> Boot:
    with vm.host_ends(spec, shares, start.memory) as ends:
        if ends.ahead is not None:
            start = Start(start.template, ahead=ends.ahead)
        boot = Boot(spec, ends, marker.encode(), observer, start)
        await boot.run(shares, partial(_write_script, spec, shares))
        if not boot.conversation.no_answer:
            await boot.read_tests()
        elif words := ends.log.last_words:
            boot.conversation.no_answer += f": {words}"
    return boot


def _result_of(
    spec: CellSpec,
    boot: Boot,
    found: list[FindingSummary],
    program: foreign.Program | None,
    seconds: float,
    start: StartKind,
) -> CellResult:
    """The result of a boot that has ended. found: its findings. program: one that could not run there."""
    from quizmatrix.run import reproduce

    outcome, detail = judge(boot.evidence, boot.console.watch)
    ended, tests = boot.evidence.ended, boot.evidence.tests
    return CellResult(
        cell=spec.labels.cell,
        kernel=spec.labels.kernel,
        release=spec.labels.release,
        arch=spec.machine.arch.name,
        variant=spec.labels.variant,
        profiles=[profile.name for profile in spec.command.profiles],
        accelerator=spec.machine.accelerator,
        outcome=outcome,
        exit_code=ended.exit_code if ended else None,
        signal=ended.signal if ended else None,
        detail=detail,
        append=spec.machine.kernel.parameters,
        built_from=spec.labels.built_from,
        again=reproduce.command_line_of(spec),
        foreign=program.architecture if program and outcome is Outcome.FAILED else "",
        subtests=tests.counts,
        known=tests.known,
        running=tests.running,
        findings=found,
        start=start,
        flaky=tests.flaky if outcome is Outcome.PASSED else "",
        timings=boot.conversation.stopwatch.timings(seconds),
    )


def _write_files(spec: CellSpec, marker: str) -> list[Share]:
    """Write the run layer, and for a debugger its script; return the guest's shares."""
    try:
        shares = runlayer.write_run_layer(spec, marker)
        qemu.check(spec, shares)
        if spec.machine.debugger:
            from quizmatrix.run import debugger

            debugger.write_script(spec)
    except OSError as error:
        raise host_error(f"write to {spec.files.folder}", error) from error
    return shares


def _write_script(spec: CellSpec, shares: list[Share]) -> None:
    """Write the script that repeats the cell by hand. That takes time, so QEMU starts meanwhile."""
    from quizmatrix.run import reproduce

    try:
        reproduce.write_script(spec, shares)
    except OSError as error:
        raise host_error(f"write to {spec.files.folder}", error) from error
