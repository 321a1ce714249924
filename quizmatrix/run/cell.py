"""Runs one cell: one function takes its specification and returns its result, without shared state."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack, closing
from pathlib import Path

from quizmatrix.core.errors import host_error
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import foreign, qemu, reproduce, runlayer, vm
from quizmatrix.run.boot import Boot
from quizmatrix.run.cellfolder import host_folder_of, run_layer_of
from quizmatrix.run.channel import ConsolePipe, Port
from quizmatrix.run.observer import NOBODY, Observer
from quizmatrix.run.verdict import judge


async def run_cell(spec: CellSpec, observer: Observer = NOBODY) -> CellResult:
    """Boot a cell's guest, run its command, and decide the outcome.

    Writes console.log, stdout, stderr, qemu.log, reproduce.sh, artifacts/, subtests.json and findings.json
    into `spec.files.folder`. Everything that happens to the guest becomes an outcome. Raises QuizmatrixError
    if this host cannot do its part.
    """
    started = time.monotonic()
    marker = os.urandom(16).hex()
    shares = _write_files(spec, marker, observer)
    if not spec.machine.kernel.has_9p:
        from quizmatrix.run import layerdisks

        try:
            spec, shares = await layerdisks.convert(spec, shares), []
        except BaseException:
            shutil.rmtree(host_folder_of(Path(spec.files.folder)), ignore_errors=True)
            raise
    with ExitStack() as stack:
        console = stack.enter_context(closing(ConsolePipe()))
        ports = {name: stack.enter_context(closing(Port())) for name in qemu.ports_of(spec)}
        log = stack.enter_context(closing(vm.Log(Path(spec.files.folder) / "qemu.log")))
        boot = Boot(spec, console, ports, log, marker.encode(), observer)
        await boot.run(shares)
        await boot.read_tests()
        found = await boot.keep_findings()
        program = foreign.failed_program(spec, boot.evidence.ended)
        boot.evidence.foreign = program.sentence if program else ""
    outcome, detail = judge(boot.evidence, boot.console.watch)
    ended = boot.evidence.ended
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
        again=reproduce.command_line_of(spec),
        foreign=program.architecture if program and outcome is Outcome.FAILED else "",
        subtests=boot.evidence.tests.counts,
        findings=found,
        flaky=boot.evidence.tests.flaky if outcome is Outcome.PASSED else "",
        timings=boot.conversation.stopwatch.timings(time.monotonic() - started),
    )


def _write_files(spec: CellSpec, marker: str, observer: Observer) -> list[Share]:
    """Write the run layer and the scripts for the user; return the guest's shares."""
    try:
        shares = runlayer.write_run_layer(spec, marker)
        qemu.check(spec, shares)
        if observer.terminal is not None:
            observer.terminal.write(run_layer_of(Path(spec.files.folder)))
        reproduce.write_script(spec, shares)
        if spec.machine.debugger:
            from quizmatrix.run import debugger

            debugger.write_script(spec)
    except OSError as error:
        raise host_error(f"write to {spec.files.folder}", error) from error
    return shares
