"""What one cell is run from, and what comes out: both are JSON, and neither knows a scheduler."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core.errors import DamagedError
from quizmatrix.model.arch import Accelerator, Arch, DiskBus
from quizmatrix.model.cells import SHARED_LIMIT, SMALL, folder_name
from quizmatrix.model.finding import FindingSummary, Tolerance
from quizmatrix.model.forward import Forward
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.outcome import Outcome


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A host folder the guest sees: the tag it mounts, the folder, and whether it may write there.

    security_model: QEMU's option of that name; see mapped.Model.
    """

    tag: str
    path: str
    writable: bool = False
    security_model: str = "none"


# The serial number of the disk that is the base layer (guest/init1).
BASE_DISK = "base"


# The disks that go from cell to cell are `quizh0` and so on.
HANDED_DISK = "quizh"


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk: the serial number a guest knows it by, and the file it is on the host.

    fails: `read` or `write` where such requests end in errors, fails_at: at this byte alone (0: everywhere).
    origin: the file that it was a copy of. sector: bytes of a logical one. zone: MiB of each zone, of a zoned
    one (0: it is not).
    """

    serial: str
    path: str
    writable: bool = True
    fails: str = ""
    fails_at: int = 0
    origin: str | None = None
    bus: DiskBus = DiskBus.VIRTIO
    sector: int = 512
    zone: int = 0


# As CellSpec.stdin: what the observer has, and no file.
OWN_STDIN = "-"


class ActiveProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile that a guest sets up.

    asked: as the option -p has it. init: the script, or empty. files: a folder laid over the root; texts:
    files below it.
    """

    name: str
    asked: str
    environment: dict[str, str] = {}
    init: str = ""
    files: str | None = None
    texts: dict[str, str] = {}


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A host folder, or a single file, that a guest sees at a place of its own.

    writable: what it writes stays there.
    """

    path: str
    guest: str
    writable: bool = True
    is_file: bool = False


class TerminalKind(StrEnum):
    """How a person's terminal reaches a guest."""

    SSH = "ssh"
    CONSOLE = "console"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal session after the command. command: its words; none: an interactive shell.

    window: columns and rows, term: the terminal's type, for a console, which has no other way to know.
    """

    kind: TerminalKind
    command: list[str] = []
    window: tuple[int, int] = (80, 24)
    term: str = "vt220"


class Step(StrEnum):
    """What a cell does with disks that go from cell to cell."""

    WRITE = "write"
    READ = "read"
    BACK = "back"


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's part in handing disks on. written_on, read_on: ids of cells; the second is None in a `write`.

    kept: the folder in the run directory that has the disks as they were given to it, where it failed.
    """

    step: Step
    written_on: str
    read_on: str | None = None
    kept: str | None = None

    @property
    def id(self) -> str:
        """`WRITER`, `WRITER..READER` or `WRITER..READER..WRITER`: the way that the disks have gone."""
        way = {
            Step.WRITE: [self.written_on],
            Step.READ: [self.written_on, self.read_on or ""],
            Step.BACK: [self.written_on, self.read_on or "", self.written_on],
        }
        return "..".join(way[self.step])


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """A command line for a person to type. folder: where; argv: its words."""

    folder: str
    argv: list[str]


class CellSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to run one command in one cell.

    base: the base image's name. image, initramfs: paths of the kernel's. disks: what the guest has beside
    its root. has_9p: whether its kernel mounts folders of the host. layers: between the base and the run
    layer, the lowest first. work_tree: the folder the command is run in, shown at the same place, or None.
    names: other paths that lead into it, and where to; typed: the one by which the user's shell knows it.
    command: the words. profiles: in the order in which they are set up. network: whether the guest gets
    one; forwards: ports of the host that lead to it. debugger: whether QEMU listens for one; stopped: and
    waits for it; symbols: the kernel with them, where there is one. stdin: the file that the command reads,
    or `-` for what the observer has, or None. environment: of the command, beside what every one has;
    passed_on: names in it whose values are kept nowhere. user: of the guest, instead of root. session: see
    Session. handed: see Handed; matrix: the file that asks for it. timeout, boot_timeout: seconds, already
    scaled for the accelerator. memory: MiB. shared_limit: MiB that the guest may have in /shared. append:
    kernel parameters beside those that every guest has. numa: NUMA nodes. machine: a value of QEMU's option
    -machine, instead of the architecture's. qemu: more words of QEMU's command line. tolerance: of its
    kernel's complaints. again: the command line that repeats the cell, where one asked for it. folder: where
    results go; it exists, and is empty but for disks.
    """

    cell: str
    kernel: str
    kernel_key: str
    release: str
    arch: Arch
    variant: str | None
    accelerator: Accelerator
    base: str = SMALL
    image: str
    initramfs: str
    disks: list[Disk] = []
    has_9p: bool = True
    layers: list[Share]
    binds: list[Bind] = []
    work_tree: str | None
    names: dict[str, str] = {}
    typed: str | None = None
    profiles: list[ActiveProfile] = []
    network: bool = False
    forwards: list[Forward] = []
    debugger: bool = False
    stopped: bool = False
    symbols: str | None = None
    stdin: str | None = None
    environment: dict[str, str] = {}
    passed_on: list[str] = []
    user: str | None = None
    session: Session | None = None
    handed: Handed | None = None
    matrix: str | None = None
    command: list[str]
    timeout: float
    boot_timeout: float
    memory: int
    shared_limit: int = SHARED_LIMIT
    cpus: int
    append: str = ""
    numa: int = 1
    machine: str | None = None
    qemu: list[str] = []
    tolerance: Tolerance = Tolerance()
    again: CommandLine | None = None
    folder: str


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
    shard: the slice of its tests that it ran, `2of4`. findings: what its kernel complained of, the first
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
    without the command. Runs of the same command, matrix and folder are compared with each other. handoff:
    the matrix's, whose commands are run instead of `command`.
    """

    schema_: int = 1
    run: str
    command: list[str]
    handoff: Handoff | None = None
    matrix: str = ""
    folder: str = ""
    arguments: list[str] = []
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


def to_json(value: Any) -> bytes:
    """Indented JSON with a newline at the end."""
    return msgspec.json.format(encode(value)) + b"\n"


def encode(value: Any) -> bytes:
    """JSON on one line. Words and paths need not be UTF-8, which JSON is: what is not is replaced."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_as_text(msgspec.to_builtins(value)))


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return os.fsencode(value).decode(errors="replace")
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return value


def run_layer_of(folder: Path) -> Path:
    """The run layer's place in a cell's folder."""
    return folder / "layer"


def host_folder_of(folder: Path) -> Path:
    """Where the host halves of profiles keep files of this run, in a cell's folder; gone after it."""
    return folder / "host"


def artifacts_of(folder: Path) -> Path:
    """The guest's /shared in a cell's folder."""
    return folder / "artifacts"
