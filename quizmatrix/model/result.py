"""Results of cells and of a run, as results.json has them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from quizmatrix.core.errors import DamagedError
from quizmatrix.core.process import printable
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cellid import folder_name
from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.known import KnownUse
from quizmatrix.model.labels import TaskGroup, TaskLabels
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.options import RunOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.spec import BuiltFrom, CommandLine
from quizmatrix.model.start import StartKind


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds; None for a stage that was not reached.

    prepare: preparing the kernel, the image and the builds.
    boot: from QEMU's start until the guest waits for the message to start.
    profiles: from then until the command's start; includes mounting the layers. steps: its parts.
    command: from the command's start to its end.
    total: everything, preparation included.
    """

    prepare: float | None = None
    boot: float | None = None
    profiles: float | None = None
    command: float | None = None
    steps: dict[str, float] = {}
    total: float | None = None


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The host that ran a cell: its name, the version of its QEMU, and its CPU."""

    name: str
    qemu: str = ""
    cpu: str = ""


class CellResult(msgspec.Struct, frozen=True, kw_only=True, rename={"labels": "handoff"}):
    """The result of one cell: a field for each key of `cells` in results.json.

    shard: the part of its tests that it ran, `2of4`.
    exit_code: 128+n for signal n; None if the command did not end by itself.
    subtests: for each outcome (see subtest.SubtestOutcome) the number of tests, counted in the command's
    output and on the console.
    known: what was known of failing tests: the matrix's globs, and what a suite's own list has and passed.
    running: the test that was running when the guest died or was stopped; empty if none is known.
    labels: those of its task. With labels, `cell` is the id of the task, and the other fields are of the
    cell that ran.
    findings: the first ones; findings.json in the cell's folder has their traces.
    inputs: a key of all inputs, equal for equal inputs (see schedule/inputs.py); empty if unknown.
    flaky: why the outcome is not reliable; empty if nothing speaks against it.
    foreign: the architecture of a program that could not run in the guest; the kernel is not to blame.
    earlier: the run that the result was taken from, if the cell was not run again.
    append: the additional kernel parameters.
    built_from: where its OpenZFS is from; None where no profile needs that.
    again: the command line that repeats the cell.
    start: how its guest started; None if none did.
    further: the folders, in the cell's own, of further guests that ran its tests (see schedule/further.py).
    host: which one ran it, if it was another one (--on).
    """

    cell: str
    kernel: str
    release: str | None
    arch: str
    variant: str | None
    shard: str | None = None
    profiles: list[str] = []
    accelerator: Accelerator | None
    outcome: Outcome
    expected: Outcome = Outcome.PASSED
    exit_code: int | None = None
    signal: int | None = None
    attempts: int = 1
    detail: str = ""
    subtests: dict[str, int] = {}
    known: list[KnownUse] = []
    running: str = ""
    labels: TaskLabels | None = None
    findings: list[FindingSummary] = []
    inputs: str = ""
    flaky: str = ""
    foreign: str = ""
    earlier: str = ""
    append: str = ""
    built_from: BuiltFrom | None = None
    again: CommandLine | None = None
    start: StartKind | None = None
    further: list[str] = []
    host: HostFacts | None = None
    timings: Timings = Timings()

    @property
    def unsharded(self) -> str:
        """The cell's id without `@NofM`."""
        return self.cell.removesuffix(f"@{self.shard}") if self.shard else self.cell

    @property
    def group(self) -> TaskGroup | None:
        """The group that reports show it in; None: there are no groups in its run."""
        return self.labels.group if self.labels else None

    @property
    def is_as_expected(self) -> bool:
        """Whether the outcome is the one that the matrix expects."""
        return self.outcome == self.expected

    @property
    def folder(self) -> str:
        """The name of its folder in the run directory."""
        return folder_name(self.cell)


class RunResults(msgspec.Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """The content of results.json: one field for each of its keys.

    handoff: the matrix's [handoff]; its commands are run instead of `command`.
    matrix: the name or path of the matrix.
    folder: the working directory.
    arguments: the command line without the command.
    options: the same as data; None for a terminal session, and in files of earlier versions.
    started, finished: ISO 8601 in UTC. finished and exit_code are None during the run.
    Runs with the same command, matrix and folder can be compared with each other.
    """

    schema_: int = 1
    run: str
    command: list[str]
    handoff: Handoff | None = None
    matrix: str = ""
    folder: str = ""
    arguments: list[str] = []
    options: RunOptions | None = None
    started: str
    finished: str | None = None
    exit_code: int | None = None
    totals: dict[str, int] = {}
    cells: list[CellResult] = []

    def command_words(self, group: TaskGroup | None = None) -> str:
        """What was run, for a shell: in a group's cells, or in all of them."""
        if self.handoff is None:
            return printable(self.command)
        if group is None:
            return f"handoff: {self.handoff.write}; {self.handoff.read}"
        return self.handoff.command_of(group)

    @property
    def seconds(self) -> float | None:
        """The run's duration; None if it has not ended, or if the clock was set back meanwhile."""
        if self.finished is None:
            return None
        began, ended = (datetime.fromisoformat(text) for text in (self.started, self.finished))
        passed = (ended - began).total_seconds()
        return passed if passed >= 0 else None


def decode_results(data: bytes, name: str) -> RunResults:
    """Read a results.json; DamagedError if it is invalid. name: its name in the error message."""
    try:
        return msgspec.json.decode(data, type=RunResults)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{name} cannot be read", cause=str(error)) from error
