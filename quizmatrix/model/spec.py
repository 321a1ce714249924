"""CellSpec: all that is needed to run one cell."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from quizmatrix.model.arch import Accelerator, Arch, DiskBus
from quizmatrix.model.cells import SHARED_LIMIT, SMALL
from quizmatrix.model.finding import Tolerance
from quizmatrix.model.forward import Forward
from quizmatrix.model.labels import TaskLabels


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
    Session. handed: its task's labels; matrix: the file that has them. timeout, boot_timeout: seconds,
    already scaled for the accelerator. memory: MiB. shared_limit: MiB that the guest may have in /shared.
    append: kernel parameters beside those that every guest has. numa: NUMA nodes. machine: a value of QEMU's
    option -machine, instead of the architecture's. qemu: more words of QEMU's command line. tolerance: of
    findings. again: the command line that repeats the cell, where one asked for it. folder: where
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
    handed: TaskLabels | None = None
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


def run_layer_of(folder: Path) -> Path:
    """The run layer's place in a cell's folder."""
    return folder / "layer"


def host_folder_of(folder: Path) -> Path:
    """Where the host halves of profiles keep files of this run, in a cell's folder; gone after it."""
    return folder / "host"


def artifacts_of(folder: Path) -> Path:
    """The guest's /shared in a cell's folder."""
    return folder / "artifacts"
