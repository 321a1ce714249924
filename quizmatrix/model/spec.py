"""CellSpec: all that is needed to run one cell."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from quizmatrix.core import json
from quizmatrix.core.errors import DamagedError
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


# As GuestCommand.stdin: what the observer has, and no file.
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


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """What the result of a cell is named by.

    cell: its id. kernel: as the matrix names it. release: of that kernel, as uname(1) has it. handed: its
    task's labels; matrix: the file that has them. again: the command line that repeats the cell, where one
    asked for it.
    """

    cell: str
    kernel: str
    release: str
    variant: str | None = None
    handed: TaskLabels | None = None
    matrix: str | None = None
    again: CommandLine | None = None


class GuestKernel(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel that is booted.

    key: names it by its content. image, initramfs, symbols: files; the last one has its debugging symbols,
    where there are any. parameters: of its command line, beside those that every guest has. has_9p: whether
    it mounts folders of the host; else the guest has disks in their place.
    """

    key: str
    image: str
    initramfs: str
    symbols: str | None = None
    parameters: str = ""
    has_9p: bool = True


class GuestNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's network. forwards: ports of the host that lead to the guest."""

    forwards: list[Forward] = []


class GuestDebugger(msgspec.Struct, frozen=True, kw_only=True):
    """That QEMU listens for a debugger. waits: whether the guest starts only when the debugger says so."""

    waits: bool = False


class GuestMachine(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual machine.

    memory: MiB. numa: NUMA nodes. type: a value of QEMU's option -machine, instead of the architecture's.
    qemu_words: added to QEMU's command line.
    """

    arch: Arch
    accelerator: Accelerator
    kernel: GuestKernel
    memory: int
    cpus: int
    numa: int = 1
    network: GuestNetwork | None = None
    debugger: GuestDebugger | None = None
    type: str | None = None
    qemu_words: list[str] = []


class WorkTree(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that the command is run in; the guest has it at the same path.

    typed: the path by which the user's shell knows it, where that is another. links: other paths that lead
    into it, each with what it is a symbolic link to.
    """

    path: str
    typed: str | None = None
    links: dict[str, str] = {}


class GuestFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a guest sees, and where its own stay.

    folder: the cell's on the host; it exists, and is empty but for disks. base: the base image's name.
    layers: between the base and the run layer, the lowest first. disks: beside the root. shared_limit: MiB
    that the guest may have in /shared.
    """

    folder: str
    base: str = SMALL
    layers: list[Share] = []
    work_tree: WorkTree | None = None
    binds: list[Bind] = []
    disks: list[Disk] = []
    shared_limit: int = SHARED_LIMIT


class GuestCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What is run, and in which surroundings.

    words: as typed. profiles: in the order in which they are set up. environment: of the command, beside what
    every one has; passed_on: names in it whose values are kept nowhere. user: of the guest, instead of root.
    stdin: the file that the command reads, or `-` for what the observer has, or None. session: see Session.
    """

    words: list[str]
    profiles: list[ActiveProfile] = []
    environment: dict[str, str] = {}
    passed_on: list[str] = []
    user: str | None = None
    stdin: str | None = None
    session: Session | None = None


class GuestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest may do. timeout (of the command), boot_timeout: seconds, scaled for the accelerator.

    tolerance: of findings.
    """

    timeout: float
    boot_timeout: float
    tolerance: Tolerance = Tolerance()


class CellSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to run one command in one cell."""

    labels: Labels
    machine: GuestMachine
    files: GuestFiles
    command: GuestCommand
    limits: GuestLimits

    def encode(self) -> bytes:
        """JSON that `decode` reads without loss, also where words and paths are not UTF-8."""
        return json.encode_exactly(self)

    @staticmethod
    def decode(data: bytes) -> CellSpec:
        """Read what `encode` has written; DamagedError where it is something else."""
        try:
            return json.decode_exactly(data, CellSpec)
        except ValueError as error:
            raise DamagedError("a cell's specification cannot be read", cause=str(error)) from error
