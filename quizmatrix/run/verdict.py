"""Decides a cell's outcome from what was observed; a pure function."""

from __future__ import annotations

import signal

import msgspec

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.core.units import format_seconds
from quizmatrix.model.finding import Finding, SplatPolicy, Tolerance
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.stage import Stage
from quizmatrix.model.subtest import SubtestOutcome
from quizmatrix.run.channel import Message
from quizmatrix.subtests.summary import SubtestSummary


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the verdict depends on besides the evidence.

    tolerance: how findings are treated.
    factor: by how much limits are longer here than on real hardware.
    silent_reset_is_fault: whether a reset that the console did not announce is a fault.
    """

    tolerance: Tolerance = Tolerance()
    factor: float = 1.0
    silent_reset_is_fault: bool = True


class HostEvidence(msgspec.Struct, kw_only=True):
    """What was observed of the host during one cell.

    fault: an error on the host.
    shortage: a sentence if this host's disk had no room for the guest's files.
    is_out_of_memory: whether this host's kernel OOM-killed processes during the run.
    qemu_status: exit status of a QEMU that ended by itself.
    qemu_words: QEMU's last messages.
    """

    fault: str = ""
    shortage: str = ""
    is_out_of_memory: bool = False
    qemu_status: int | None = None
    qemu_words: str = ""


class Expiry(msgspec.Struct, kw_only=True):
    """What was observed of a guest whose time was up.

    limit: in seconds. hang: what it was doing. provoked: the number of lines of its console when it was made
    to panic, to see where it was.
    """

    limit: float
    hang: Finding | None = None
    provoked: int | None = None

    def has_provoked(self, line: int | None) -> bool:
        """Whether a line of the console, from 0, was printed only since the guest was made to panic."""
        return self.provoked is not None and line is not None and line >= self.provoked


class Evidence(msgspec.Struct, kw_only=True):
    """What was observed of one cell.

    stage: the last stage that was reached.
    step: the last step of the guest's setup, before the command.
    ended: the guest's message about the command's end.
    init_failed: the guest's message that its setup failed.
    expired: the time limit that expired.
    invalid_message: an invalid message from the guest, quoted.
    excess: a sentence if the guest exceeded the limit of /shared.
    tests: the tests in the command's output.
    foreign: a sentence about a program that the guest could not run.
    notes: further sentences for the user.
    """

    stage: Stage = Stage.BOOTING
    step: str = ""
    ended: Message | None = None
    init_failed: str = ""
    expired: Expiry | None = None
    invalid_message: str = ""
    excess: str = ""
    tests: SubtestSummary = SubtestSummary()
    foreign: str = ""
    notes: list[str] = []
    host: HostEvidence = msgspec.field(default_factory=HostEvidence)
    rules: Rules = Rules()


def judge(seen: Evidence, console: ConsoleWatch) -> tuple[Outcome, str]:
    """The outcome, and a sentence that explains it (empty for a plain pass)."""
    outcome, detail = _judge(seen, console)
    if seen.tests.running and seen.ended is None:
        detail += f", while {seen.tests.running} ran"
    return outcome, "; ".join([part for part in (detail, *seen.notes) if part])


def _judge(seen: Evidence, console: ConsoleWatch) -> tuple[Outcome, str]:
    if seen.host.fault:
        return Outcome.LOST, seen.host.fault
    if console.panic is not None and not (seen.expired and seen.expired.has_provoked(console.panic_line)):
        died = "Attempted to kill init" in console.panic
        return Outcome.PANICKED, ("init died: " if died else "") + console.panic
    if seen.excess and seen.expired is None:
        return Outcome.FAILED, f"stopped: {seen.excess}"
    if seen.host.shortage and seen.expired is None:
        return Outcome.LOST, f"stopped: {seen.host.shortage}"
    if seen.ended is not None:
        return _judge_end(seen.ended, console, seen)
    if seen.invalid_message:
        return Outcome.LOST, f"the guest sent an invalid message: {seen.invalid_message}"
    if seen.init_failed:
        return Outcome.BOOT_FAILED, seen.init_failed
    reached = seen.stage is Stage.RUNNING
    if seen.expired is not None:
        limit = format_seconds(seen.expired.limit)
        if seen.rules.factor != 1:
            limit += f" (emulated; {format_seconds(seen.expired.limit / seen.rules.factor)} on hardware)"
        if reached:
            doing = f": {seen.expired.hang.title}" if seen.expired.hang else ""
            return Outcome.TIMED_OUT, f"the command was still running after {limit}{doing}"
        if seen.step.startswith("profile "):
            return Outcome.TIMED_OUT, f"the {seen.step} was still being set up after {limit}"
        where = "no sign of life" if seen.stage is Stage.BOOTING else "the layers were not mounted"
        return Outcome.BOOT_FAILED, f"{where} after {limit}"
    return _judge_silence(seen, console, reached)


def _judge_end(end: Message, console: ConsoleWatch, seen: Evidence) -> tuple[Outcome, str]:
    tests = seen.tests
    if end.exit_code and (end.signal is not None or not tests.explains(end.exit_code)):
        details = [seen.foreign]
        if end.signal is not None:
            details.append(f"killed by {_signal_name(end.signal)}")
        if console.out_of_memory:
            details.append(f"the guest ran out of memory and killed {console.out_of_memory}")
        return Outcome.FAILED, "; ".join(part for part in (*details, tests.summary) if part)
    if tests.failure:
        # Failed tests count even if the exit status is 0: some test runners report only their own success.
        return Outcome.FAILED, tests.failure
    finding = _finding(console, seen.rules.tolerance)
    if seen.rules.tolerance.splat is SplatPolicy.FAIL and finding:
        return Outcome.SPLAT, finding
    details = [f"the kernel complained: {finding}" if finding else ""]
    details += [tests.summary] if SubtestOutcome.FAILED_AS_EXPECTED in tests.counts else []
    return Outcome.PASSED, "; ".join(filter(None, details))


def _finding(console: ConsoleWatch, tolerance: Tolerance) -> str:
    """The first finding that is not allowed, and the number of further ones; empty if there is none."""
    if tolerance.splat is SplatPolicy.IGNORE:
        return ""
    findings = [finding for finding in tolerance.apply(console.findings) if not finding.allowed]
    number = sum(finding.count for finding in findings) + console.unread
    if not number:
        return ""
    title = findings[0].title if findings else "more findings than are read"
    return title + (f" (and {number - 1} more)" if number > 1 else "")


def _judge_silence(seen: Evidence, console: ConsoleWatch, reached: bool) -> tuple[Outcome, str]:
    """The outcome if QEMU or the guest ended without a message on the control port."""
    if seen.host.qemu_status:
        how = (
            f"was killed by {_signal_name(-seen.host.qemu_status)}"
            if seen.host.qemu_status < 0
            else f"ended with status {seen.host.qemu_status}"
        )
        if seen.host.qemu_status == -signal.SIGKILL and seen.host.is_out_of_memory:
            how = "was killed: this host ran out of memory, or the cgroup that quizmatrix runs in did "
            how += "(take fewer at a time, -j, or smaller, --memory)"
        lines = seen.host.qemu_words.splitlines()
        # After QEMU's error there may be a hint: "Use -machine help to list supported machines".
        errors = [line for line in lines if line.startswith("qemu-")]
        words = (errors or lines)[-1:]
        return Outcome.LOST, f"QEMU {how}" + (f": {words[0]}" if words else "")
    if not reached:
        return Outcome.BOOT_FAILED, "the guest restarted before it reached the command"
    if console.restarted or (seen.host.qemu_status is not None and not seen.rules.silent_reset_is_fault):
        return Outcome.FAILED, "the machine was restarted or powered off before the command ended"
    if seen.host.qemu_status is None:
        return Outcome.LOST, "the guest closed its control port, and QEMU did not end"
    return Outcome.PANICKED, "the machine reset without a message (a triple fault?)"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
