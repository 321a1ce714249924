"""Results of cells and of a run, as results.json has them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from quizmatrix.core.errors import DamagedError
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import folder_name
from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.options import RunOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.spec import CommandLine, Handed, Step


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds spent; None where it was not reached.

    boot: from QEMU's start until the guest was told to start. profiles: from there to the
    command's start, joining the layers included; steps: the parts of that. command: until it ended.
    total: all of it, and preparing.
    """

    prepare: float | None = None
    boot: float | None = None
    profiles: float | None = None
    command: float | None = None
    steps: dict[str, float] = {}
    total: float | None = None


class CellResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one cell (the keys of results.json's `cells`).

    exit_code: 128+n for signal n; None where the command never ended by itself. subtests: how many of the
    tests in the command's output and on the console ended with each outcome (see subtest.SubtestOutcome).
    shard: the slice of its tests that it ran, `2of4`. findings: the first
    ones; the cell's findings.json has their traces. inputs: the same for runs of the same (see
    inputs.Inputs), empty where that is not known. flaky: why this outcome is not to be relied on, empty
    where nothing is known against it. foreign: the architecture of a program that could not be run, which
    says nothing of the kernel. earlier: the run that it is the result of, where it was not run again.
    append: the kernel parameters that were asked for. again: the command line that repeats the cell. handoff:
    where disks are handed on; `cell` is then the way they have gone, and what follows it is of the cell that
    ran.
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
    handoff: Handed | None = None
    findings: list[FindingSummary] = []
    inputs: str = ""
    flaky: str = ""
    foreign: str = ""
    earlier: str = ""
    append: str = ""
    again: CommandLine | None = None
    timings: Timings = Timings()

    @property
    def unsharded(self) -> str:
        """Its cell's id without the slice: what ran the same tests has the same."""
        return self.cell.removesuffix(f"@{self.shard}") if self.shard else self.cell

    @property
    def is_as_expected(self) -> bool:
        """Whether the outcome is the one its matrix expects."""
        return self.outcome == self.expected

    @property
    def folder(self) -> str:
        """The name of its folder in the run directory."""
        return folder_name(self.cell)


def ways_of(results: Iterable[CellResult], step: Step) -> list[tuple[CellResult, Handed]]:
    """The results of one step in handing disks on, each with its part in it."""
    handed = [(result, result.handoff) for result in results]
    return [(result, way) for result, way in handed if way is not None and way.step is step]


class RunResults(msgspec.Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """results.json. started, finished: ISO 8601 in UTC; finished and exit_code are None while it runs.

    matrix: the name or the path of its matrix, folder: the current folder, arguments: the command line
    without the command; options: what it says, None in a terminal's session and where an earlier quizmatrix
    wrote this. Runs of the same command, matrix and folder are compared with each other. handoff:
    the matrix's, whose commands are run instead of `command`.
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

    @property
    def seconds(self) -> float | None:
        """From its start to its end; None where it has not ended, or the clock was set back meanwhile."""
        if self.finished is None:
            return None
        began, ended = (datetime.fromisoformat(text) for text in (self.started, self.finished))
        passed = (ended - began).total_seconds()
        return passed if passed >= 0 else None


def decode_results(data: bytes, name: str) -> RunResults:
    """Read a results.json; DamagedError where it is none."""
    try:
        return msgspec.json.decode(data, type=RunResults)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{name} cannot be read", cause=str(error)) from error
