"""CellSpec: everything that is needed to run one command in one cell."""

from __future__ import annotations

import msgspec

from quizmatrix.core import json
from quizmatrix.core.errors import DamagedError
from quizmatrix.model.arch import Accelerator, Arch, DiskBus
from quizmatrix.model.cells import SHARED_LIMIT, SMALL
from quizmatrix.model.finding import Tolerance
from quizmatrix.model.forward import Forward
from quizmatrix.model.known import KnownFailure
from quizmatrix.model.labels import TaskLabels
from quizmatrix.model.start import StartKind
from quizmatrix.model.testchoice import TestChoice

# The prefix of the tags of layers that the user named: `user0`, `user1`, ...
USER_LAYER = "user"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A host folder that the guest mounts.

    tag: the name by which the guest mounts it.
    path: the folder on the host.
    writable: whether the guest may write to it.
    security_model: QEMU's option of that name; see run/mapped.py.
    """

    tag: str
    path: str
    writable: bool = False
    security_model: str = "none"

    @property
    def is_users(self) -> bool:
        """Whether it is a layer that the user named."""
        return self.tag.startswith(USER_LAYER)


# The serial number of the disk with the base layer (guest/init1).
BASE_DISK = "base"


# The prefix of the serial numbers of disks that are handed on: `quizh0`, `quizh1`, ...
HANDED_DISK = "quizh"


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a guest.

    serial: the serial number by which the guest finds it.
    path: the file on the host.
    fails: `read` or `write`: such requests fail. fails_at: only at this byte (0: everywhere).
    origin: the file that it was copied from.
    sector: bytes of a logical sector.
    zone: MiB of a zone of a zoned disk (0: not zoned).
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


# The value of GuestCommand.stdin that means the observer's stdin instead of a file.
OWN_STDIN = "-"


class ActiveProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile that a guest sets up.

    asked: the profile as written for the option -p.
    environment: variables for its init script.
    init: the text of that script, or empty.
    files: a folder on the host that is laid over the guest's root.
    texts: further files of the guest: content by path.
    """

    name: str
    asked: str
    environment: dict[str, str] = {}
    init: str = ""
    files: str | None = None
    texts: dict[str, str] = {}


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    """A host folder or file that the guest sees at another path. path: on the host. guest: in the guest.

    writable: whether the guest may write to it; its writes stay.
    """

    path: str
    guest: str
    writable: bool = True
    is_file: bool = False


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A person's session after the command.

    command: its words; empty for an interactive shell. window, term: columns and rows of the terminal, and
    its type; None and empty where there is none. user: of the guest, instead of root.
    has_sshd: whether `exec` and `cp` can reach the guest, too.
    """

    command: list[str] = []
    window: tuple[int, int] | None = None
    term: str = ""
    user: str | None = None
    has_sshd: bool = False


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """A command line for the user to type. folder: the working directory. argv: its words."""

    folder: str
    argv: list[str]


class BuiltFrom(msgspec.Struct, frozen=True, kw_only=True):
    """The work tree that the guest's OpenZFS was built from. head: its branch and commit then, with git."""

    tree: str
    head: str = ""


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """The names of a cell, as its result has them.

    cell: the cell's id.
    kernel: as the matrix names it.
    release: what `uname -r` prints in the guest.
    task: the labels of its task, if there are any. matrix: the file that they come from.
    again: the command line that repeats the cell, if a command line started it.
    built_from: where its OpenZFS is from, if one of its profiles needs that.
    """

    cell: str
    kernel: str
    release: str
    variant: str | None = None
    task: TaskLabels | None = None
    matrix: str | None = None
    again: CommandLine | None = None
    built_from: BuiltFrom | None = None


class GuestKernel(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel that is booted.

    key: its key in the cache. version: the upstream version.
    image, initramfs: files.
    symbols: its vmlinux with symbols, if there is one.
    parameters: additional kernel parameters.
    has_9p: whether the kernel can mount host folders; if not, the guest gets them as disks.
    layer_bus: the kind of disks as which it gets layers.
    """

    key: str
    version: str = ""
    image: str
    initramfs: str
    symbols: str | None = None
    parameters: str = ""
    has_9p: bool = True
    layer_bus: DiskBus = DiskBus.VIRTIO


class GuestNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's network. forwards: host ports that are forwarded to the guest."""

    forwards: list[Forward] = []


class GuestDebugger(msgspec.Struct, frozen=True, kw_only=True):
    """QEMU listens for a debugger. waits: the guest starts only when the debugger continues it."""

    waits: bool = False


class GuestMachine(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual machine.

    memory: MiB.
    numa: the number of NUMA nodes.
    type: a value for QEMU's option -machine, instead of the architecture's.
    qemu_words: additional arguments for QEMU.
    start: how it has to start; None: as is fastest.
    one_thread: QEMU emulates all CPUs in one thread.
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
    start: StartKind | None = None
    one_thread: bool = False

    @property
    def timeout_factor(self) -> float:
        """By how much the command's time limits are longer than on hardware with as many CPUs."""
        factor = self.arch.facts.timeout_factor.of(self.accelerator)
        return factor * self.cpus if self.one_thread else factor

    @property
    def answers_nmi(self) -> bool:
        """Whether the kernel prints its stack, and ends, when QEMU injects an NMI."""
        parameter = self.arch.facts.kernel.nmi_parameter
        return parameter == "" or (parameter is not None and self.accelerator is Accelerator.TCG)


class WorkTree(msgspec.Struct, frozen=True, kw_only=True):
    """The folder in which the command runs. The guest has it at the same path.

    place: where this host has it, if that is elsewhere. typed: its path in the user's shell (PWD), if that is
    another one. links: other paths that lead into it, each with the target of the symbolic link that the
    guest gets.
    """

    path: str
    place: str = ""
    typed: str | None = None
    links: dict[str, str] = {}

    @property
    def host_path(self) -> str:
        """Where this host has it."""
        return self.place or self.path


class GuestFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a guest, and the folder of its results.

    folder: the cell's folder on the host. It exists, and has no files but disks.
    base: the name of the base image.
    layers: between the base layer and the run layer, the lowest first.
    disks: in addition to those that replace host folders (see GuestKernel.has_9p).
    shared_limit: the largest size of /shared, in MiB.
    """

    folder: str
    base: str = SMALL
    layers: list[Share] = []
    work_tree: WorkTree | None = None
    binds: list[Bind] = []
    disks: list[Disk] = []
    shared_limit: int = SHARED_LIMIT

    @property
    def handed_disks(self) -> list[Disk]:
        """The disks that are handed from cell to cell."""
        return [disk for disk in self.disks if disk.serial.startswith(HANDED_DISK)]


class GuestCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The command, and what it runs with.

    words: as typed.
    profiles: in the order in which they are set up.
    environment: additional environment variables. passed_on: those whose values are never stored.
    user: the guest's user; None: root.
    stdin: a file, OWN_STDIN for the observer's input, or None.
    session: the terminal session after the command.
    tests: what it is told about its tests.
    """

    words: list[str]
    profiles: list[ActiveProfile] = []
    environment: dict[str, str] = {}
    passed_on: list[str] = []
    user: str | None = None
    stdin: str | None = None
    session: Session | None = None
    tests: TestChoice = TestChoice()


class GuestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Time limits, and which findings and failures of tests are no news.

    timeout: of the command. boot_timeout: until the command starts. Both in seconds, already multiplied by
    the accelerator's factor.
    tolerance: how findings are treated.
    known: tests that the matrix knows to fail in this cell. known_quietly: that profiles know; of those that
    did not run nothing is said. Where both know one, the matrix counts.
    """

    timeout: float
    boot_timeout: float
    tolerance: Tolerance = Tolerance()
    known: list[KnownFailure] = []
    known_quietly: list[KnownFailure] = []


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a guest beside what its command writes.

    memory: its memory, if the command outlives its limit. counters: how often each line of its kernel and
    modules ran, as far as they were compiled to count that.
    """

    memory: bool = False
    counters: bool = False


class CellSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is needed to run one command in one cell."""

    labels: Labels
    machine: GuestMachine
    files: GuestFiles
    command: GuestCommand
    limits: GuestLimits
    keeps: Kept = Kept()

    def encode(self) -> bytes:
        """JSON from which `decode` makes an equal specification, even if words or paths are not UTF-8."""
        return json.encode_exactly(self)

    @staticmethod
    def decode(data: bytes) -> CellSpec:
        """Read the output of `encode`. Raises DamagedError for anything else."""
        try:
            return json.decode_exactly(data, CellSpec)
        except ValueError as error:
            raise DamagedError("a cell's specification cannot be read", cause=str(error)) from error
