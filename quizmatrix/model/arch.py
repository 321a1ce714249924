"""Facts about architectures, read from `arch/NAME.toml`; no other place knows any."""

from __future__ import annotations

import platform
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from quizmatrix.core import paths, tomlfile
from quizmatrix.core.elf import Elf
from quizmatrix.core.errors import UsageError

# What the architecture of this host is called where an architecture is asked for.
NATIVE = "native"


class Accelerator(StrEnum):
    """What QEMU runs the guest with (QEMU's option -accel)."""

    KVM = "kvm"
    TCG = "tcg"


class PerAccelerator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value for each accelerator."""

    kvm: str
    tcg: str

    def of(self, accelerator: Accelerator) -> str:
        """The value for `accelerator`."""
        return self.kvm if accelerator is Accelerator.KVM else self.tcg


class TimeoutFactor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By what a time limit meant for hardware is multiplied."""

    kvm: float = 1.0
    tcg: float

    def of(self, accelerator: Accelerator) -> float:
        """The factor for `accelerator`."""
        return self.kvm if accelerator is Accelerator.KVM else self.tcg


class DiskBus(StrEnum):
    """What a disk is to its guest."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    NVME = "nvme"


class Slots(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Slots of a PCI bus that devices may be put into: from `first` on, `count` of them."""

    first: int
    count: int


class Qemu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How QEMU is asked for a machine of this architecture.

    binary: the program. package: Debian's package of it. machine, cpu: values of -machine and -cpu.
    transport: the last word of a virtio device's name (`virtio-9p-ccw`): device, pci or ccw.
    console: the options that tie the kernel's console to the chardev `console`. slots: of the bus, where it
    has a limit; QEMU chooses among them, until there are more devices than slots: then a slot takes several,
    as functions of one device. disk-buses: what its disks may be. numa: MiB that the memory of a NUMA
    node is a multiple of; 0 where the machine has no nodes.
    """

    binary: str
    package: str
    machine: PerAccelerator
    cpu: PerAccelerator
    transport: str
    console: list[str]
    slots: Slots | None = None
    disk_buses: list[DiskBus] = msgspec.field(
        name="disk-buses", default_factory=lambda: [DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.NVME]
    )
    numa: int = 0


class KernelFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the kernel needs here.

    image: of Debian's packages: `vmlinux` (unpacked, where an x86 boot image is packaged), or any
    other name (as packaged). modules: what a guest loads to reach its layers and its channel, where
    the kernel has it as a module. command-line: the kernel's own parameters (Documentation/
    admin-guide/kernel-parameters.txt), the way the guest restarts among them: a guest ends by a
    restart, which -no-reboot turns into QEMU's end. silent-reset: what a reset means that the
    console did not announce: `fault` or `restart`.
    """

    image: str
    modules: list[str]
    command_line: list[str] = msgspec.field(name="command-line")
    silent_reset: Literal["fault", "restart"] = msgspec.field(name="silent-reset")


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How a kernel is built for the architecture.

    make_arch: the kernel's own name of it (ARCH=). target: what is made beside the modules. image:
    the file that is then booted, below the build folder. compiler_package: Debian's package of the
    cross compiler. make_options: more words of make's command line (the kernel's kbuild/makefiles.rst).
    """

    make_arch: str
    target: str
    image: str
    compiler_package: str
    make_options: list[str] = []


class Debian(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Debian's name of the architecture, and the flavour in its kernel packages' names.

    variants: Debian's other flavours, by the variant of a cell that has them.
    """

    arch: str
    flavour: str
    variants: dict[str, str] = {}


class ArchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The keys of `arch/NAME.toml`.

    host_machines: what `uname -m` prints where it runs natively. cross_prefix: of the cross
    compiler. byte_order: little or big. elf: what its programs begin with. debian: absent where Debian's
    archive does not carry it.
    """

    summary: str
    byte_order: str
    elf: Elf
    host_machines: list[str]
    cross_prefix: str
    qemu: Qemu
    kernel: KernelFacts
    build: Build
    debian: Debian | None = None
    timeout_factor: TimeoutFactor


class Arch(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture: its name and the facts of its file."""

    name: str
    facts: ArchFile

    @property
    def is_native(self) -> bool:
        """Whether this host could run its guests without emulation."""
        return platform.machine() in self.facts.host_machines


def arch_names() -> list[str]:
    """The architectures there are: the files in `arch/`, sorted."""
    return sorted(path.stem for path in paths.data_dir("arch").glob("*.toml"))


@cache
def load_arch(name: str) -> Arch:
    """Read `arch/NAME.toml`, or that of this host (`native`).

    UsageError where there is none, DataError where it is wrong.
    """
    if name == NATIVE:
        return host_arch()
    names = arch_names()
    if name not in names:
        raise UsageError(f"unknown architecture `{name}`", next_step=f"Known: {', '.join(names)}, {NATIVE}.")
    return load_arch_file(paths.data_dir("arch") / f"{name}.toml")


def debian_variants() -> set[str]:
    """The variants of kernels that Debian's archive has ready-made, for one architecture or another."""
    files = (load_arch(name).facts.debian for name in arch_names())
    return {variant for debian in files if debian for variant in debian.variants}


def host_arch() -> Arch:
    """The architecture of this host; UsageError where it is none of them."""
    for name in arch_names():
        if load_arch(name).is_native:
            return load_arch(name)
    raise UsageError(
        f"this host is a {platform.machine()}, for which there is no file in arch/",
        next_step=f"Name architectures with -a: {', '.join(arch_names())}.",
    )


def real_name(name: str) -> str:
    """The architecture that a name means: `native` is this host's; UsageError where that is none."""
    return host_arch().name if name == NATIVE else name


def load_arch_file(path: Path) -> Arch:
    """Read one architecture's file, wherever it lies; DataError where it is wrong."""
    return Arch(name=path.stem, facts=tomlfile.load(path, ArchFile))
