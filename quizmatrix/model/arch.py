"""Reads the facts about an architecture from `arch/NAME.toml`; the code has none of its own."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from quizmatrix.core import paths, tomlfile
from quizmatrix.core.elf import Elf, Machine, other_machines
from quizmatrix.core.errors import UsageError

# A name for this host's architecture, wherever an architecture can be named.
NATIVE = "native"


class Accelerator(StrEnum):
    """How QEMU executes the guest's code (QEMU's option -accel)."""

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
    """The factor by which time limits, which are given for real hardware, are multiplied."""

    kvm: float = 1.0
    tcg: float

    def of(self, accelerator: Accelerator) -> float:
        """The factor for `accelerator`."""
        return self.kvm if accelerator is Accelerator.KVM else self.tcg


class DiskBus(StrEnum):
    """The kind of device as which a guest sees a disk."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    NVME = "nvme"


class Slots(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The slots of a PCI bus that are free for devices: `count` slots, starting at `first`."""

    first: int
    count: int


class Qemu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """QEMU's program and options for a machine of this architecture.

    binary: the program.
    package: its Debian package.
    machine, cpu: values of -machine and -cpu.
    transport: the last part of a virtio device's name (`virtio-9p-ccw`): device, pci or ccw.
    console: the options that connect the kernel's console to the chardev `console`.
    slots: the slots of the bus, if their number is limited. QEMU chooses the slots, unless there are more
    devices than slots: then a slot gets several devices, as functions.
    disk-buses: the kinds of disks that the machine supports.
    rest: seconds for which a guest's CPUs have to sleep before it is saved as a template.
    threads-from: the first version whose emulation (TCG) may give each CPU a thread of its own; in an older
    one a CPU can run instructions that another one has just replaced. None: every version may.
    numa: the memory of a NUMA node must be a multiple of this, in MiB; 0 if the machine has no NUMA nodes.
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
    rest: float = 0.001
    threads_from: str | None = msgspec.field(name="threads-from", default=None)


class KernelFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a kernel needs on this architecture.

    image: the boot file of Debian's kernels: `vmlinux` (unpacked from the package's x86 boot image), or any
    other name (as packaged).
    modules: modules that a guest loads to reach its layers and its channel, unless they are built in.
    command-line: kernel parameters (Documentation/admin-guide/kernel-parameters.txt). One of them says how
    the guest restarts: a guest ends with a restart, which -no-reboot turns into QEMU's end.
    silent-reset: the meaning of a reset that the console did not announce: `fault` or `restart`.
    nmi-parameter: the parameter by which the kernel prints its stack when QEMU injects an NMI, which ends it;
    empty if it needs none. Only emulated guests get it: on hardware, NMIs come unasked. None: it never does.
    """

    image: str
    modules: list[str]
    command_line: list[str] = msgspec.field(name="command-line")
    silent_reset: Literal["fault", "restart"] = msgspec.field(name="silent-reset")
    nmi_parameter: str | None = msgspec.field(name="nmi-parameter", default=None)


class Build(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """How a kernel is built for the architecture.

    make_arch: the architecture's name in the kernel's build system (ARCH=).
    target: the make target beside `modules`.
    image: the boot file, relative to the build folder.
    compiler_package: the Debian package of the cross compiler.
    make_options: more arguments for make (kernel document kbuild/makefiles.rst).
    """

    make_arch: str
    target: str
    image: str
    compiler_package: str
    make_options: list[str] = []


class Debian(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Debian's names. arch: the architecture. flavour: the flavour in the names of its kernel packages.

    variants: Debian's other flavours, keyed by the variant of a cell that uses them.
    """

    arch: str
    flavour: str
    variants: dict[str, str] = {}


class RegistersPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Where the registers of a CPU are, in bytes, that QEMU writes down and drgn does not find.

    in_note: in `struct elf_prstatus`. in_pt_regs: where they belong in `struct pt_regs`. size: of them.
    """

    in_note: int
    in_pt_regs: int
    size: int


class ArchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The keys of `arch/NAME.toml`.

    byte_order: little or big.
    elf: the ELF header of its programs.
    host_machines: what `uname -m` prints on hosts of this architecture.
    cross_prefix: the prefix of the cross compiler's tools.
    drgn: drgn's name of the architecture (drgn.Architecture).
    registers: where they are in the notes of a guest's memory; absent where drgn finds them.
    debian: absent if Debian's archive does not have the architecture.
    """

    summary: str
    byte_order: str
    elf: Elf
    host_machines: list[str]
    cross_prefix: str
    drgn: str
    qemu: Qemu
    kernel: KernelFacts
    build: Build
    debian: Debian | None = None
    registers: RegistersPlace | None = None
    timeout_factor: TimeoutFactor


class Arch(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture: its name and the facts of its file."""

    name: str
    facts: ArchFile

    @property
    def is_native(self) -> bool:
        """Whether this host has this architecture, so that its guests need no emulation."""
        return os.uname().machine in self.facts.host_machines

    @property
    def machine(self) -> Machine:
        """The machine of its kernel, its modules and its programs."""
        own = self.facts.elf
        return Machine(machine=own.machine, bits=own.bits, byte_order=self.facts.byte_order)


@cache
def machines() -> dict[str, Machine]:
    """All known machines, by name."""
    return {name: load_arch(name).machine for name in arch_names()} | other_machines()


def machine_name(machine: Machine) -> str:
    """The usual name of a machine."""
    found = [name for name, known in machines().items() if known == machine]
    return found[0] if found else f"machine {machine.machine}"


@cache
def arch_names() -> tuple[str, ...]:
    """All architectures (the files in `arch/`), sorted."""
    return tuple(sorted(path.stem for path in paths.data_dir("arch").glob("*.toml")))


@cache
def load_arch(name: str) -> Arch:
    """Read `arch/NAME.toml`; `native` means this host's architecture.

    Raises UsageError if there is no such file, DataError if it is invalid.
    """
    if name == NATIVE:
        return host_arch()
    names = arch_names()
    if name not in names:
        raise UsageError(f"unknown architecture `{name}`", next_step=f"Known: {', '.join(names)}, {NATIVE}.")
    return load_arch_file(paths.data_dir("arch") / f"{name}.toml")


def debian_variants() -> set[str]:
    """The variants that Debian has as binary packages, for any architecture."""
    files = (load_arch(name).facts.debian for name in arch_names())
    return {variant for debian in files if debian for variant in debian.variants}


def host_arch() -> Arch:
    """The architecture of this host; UsageError if it has no file in `arch/`."""
    machine = os.uname().machine
    # That has its name nearly everywhere, so that the other files need not be read.
    for name in sorted(arch_names(), key=lambda name: name != machine):
        if load_arch(name).is_native:
            return load_arch(name)
    raise UsageError(
        f"this host is a {machine}, for which there is no file in arch/",
        next_step=f"Name architectures with -a: {', '.join(arch_names())}.",
    )


def real_name(name: str) -> str:
    """Replace `native` by the name of this host's architecture; UsageError if that has no file."""
    return host_arch().name if name == NATIVE else name


def load_arch_file(path: Path) -> Arch:
    """Read an architecture's file from any path; DataError if it is invalid."""
    return Arch(name=path.stem, facts=tomlfile.load(path, ArchFile))
