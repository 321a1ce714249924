"""Makes the QEMU command line of a cell; a pure function."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from quizmatrix.core import filesystem
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model import numa
from quizmatrix.model.arch import Accelerator, DiskBus
from quizmatrix.model.spec import CellSpec, Disk, Share
from quizmatrix.run import bus, slots
from quizmatrix.run.bus import Bus
from quizmatrix.run.ends import CONSOLE, CONTROL, QMP

# The guest's virtio-serial ports. With the console, these are the chardevs of every guest.
PORTS = (CONTROL, "stdout", "stderr")
CHARDEVS = (CONSOLE, *PORTS)
# An additional port if the command has a standard input.
STDIN = "stdin"
# Additional ports for a person's session, and for the guest's SSH server beside it.
TERMINAL = "terminal"
SSH = "ssh"
# A chardev for QEMU's control channel, beside QMP, by which guests are saved and restored: for one that hangs
# or has died. Nobody speaks there before, so QEMU reports nothing there.
MONITOR = "monitor"
# The id of the memory, and the end of -machine's value that names it.
_MEMORY = "memory"
_BACKED = f",memory-backend={_MEMORY}"

# The path by which QEMU opens a file descriptor of -add-fd with set=1.
PASSED_FILE = "/dev/fdset/1"

# An oops stops the guest: results after an oops prove nothing (kernel-parameters.txt).
_COMMAND_LINE = ("oops=panic",)
# With a debugger, a guest that panicked does not restart.
_DEBUGGED = ("panic=0",)

# QEMU's seccomp filters (option -sandbox): no new programs, no change of user, no setuid.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


# Bytes of a sector: the unit of blkdebug, and the default of a disk.
_SECTOR = 512


# The class of QEMU's for a guest's memory in a file, and its property with which it opens that for reading
# alone (from 8.2 on).
MEMORY_FILE, READ_ONLY = "memory-backend-file", "rom"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of a guest that is saved as a template, or restored from one.

    template: the file of a template's memory, of which the guest gets a copy of each page that it writes to;
    None for a guest that is booted, and saved then. is_read_only: QEMU opens that file for reading alone.
    passed_fd: for such a guest, the descriptor of the file that its memory is in, which QEMU inherits.
    """

    template: str | None = None
    is_read_only: bool = False
    passed_fd: int = -1

    def options(self, size: int) -> list[str]:
        """QEMU's options for it. size: MiB."""
        common = f"{MEMORY_FILE},id={_MEMORY},size={size}M"
        if self.template is None:
            # QEMU leaves memory out of what it saves only if it is shared with a file that has a name: from
            # 8.1 on a memory-backend-memfd is saved whole.
            return ["-object", f"{common},share=on,mem-path=/proc/self/fd/{self.passed_fd}"]
        file = f"{common},share=off,mem-path={option_value(self.template)}"
        if self.is_read_only:
            # The file, that is; the guest's memory is no ROM (QEMU document system/vm-templating.rst).
            file += ",readonly=on,rom=off"
        return ["-object", file, "-incoming", "defer"]


def ports_of(spec: CellSpec, *, with_qmp: bool = False) -> list[str]:
    """The chardevs of a cell's guest, without its console. with_qmp: it is saved or restored."""
    return [
        *PORTS,
        STDIN,
        MONITOR,
        *([TERMINAL] if spec.command.session else []),
        *([SSH] if spec.command.session and spec.command.session.has_sshd else []),
        *([QMP] if with_qmp else []),
    ]


def chardevs_of(ports: Mapping[str, int | str]) -> dict[str, str]:
    """The chardevs of a guest that is connected to us. ports: the descriptor of each."""
    chardevs = {name: f"socket,fd={descriptor}" for name, descriptor in ports.items()}
    # append: QEMU would truncate the file, which fails for a pipe.
    return chardevs | {CONSOLE: f"file,path={PASSED_FILE},append=on"}


def option_value(text: str) -> str:
    """A value for one of QEMU's comma-separated options, with commas doubled."""
    return text.replace(",", ",,")


def parameters_of(spec: CellSpec) -> str:
    """The kernel command line. The user's parameters come last: of two, the kernel uses the last one."""
    machine = spec.machine
    facts = machine.arch.facts.kernel
    own = list(facts.command_line)
    if machine.accelerator is Accelerator.TCG and facts.nmi_parameter:
        own.append(facts.nmi_parameter)
    own += [*_COMMAND_LINE, *(_DEBUGGED if machine.debugger else ())]
    return " ".join([*own, *([machine.kernel.parameters] if machine.kernel.parameters else [])])


def _others(spec: CellSpec) -> int:
    """The number of other devices on the bus: the serial ports, the network, the SCSI controller."""
    has_scsi = any(disk.bus is DiskBus.SCSI for disk in spec.files.disks)
    return 1 + (spec.machine.network is not None) + has_scsi


def check(spec: CellSpec, shares: list[Share]) -> None:
    """Raises UnpreparedError if QEMU's machine cannot have the disks, nodes or devices of `spec`."""
    known = spec.machine.arch.facts.qemu.disk_buses
    lacking = dict.fromkeys(disk.bus for disk in spec.files.disks if disk.bus not in known)
    if lacking:
        raise UnpreparedError(
            f"{spec.labels.cell} cannot have disks on {', '.join(lacking)}",
            cause=f"QEMU's machine for {spec.machine.arch.name} has {', '.join(known)} for them",
            next_step="Choose another bus, or leave the architecture out.",
        )
    numa.check_machine(spec.labels.cell, spec.machine.arch, spec.machine.numa, spec.machine.memory)
    bus.check_room(spec.labels.cell, folders=len(shares), disks=len(spec.files.disks), others=_others(spec))


def _extras(spec: CellSpec, chardevs: Mapping[str, str], places: Bus) -> list[str]:
    """The options for devices that only some guests have: stdin, terminal, disks, network, debugger."""
    transport = spec.machine.arch.facts.qemu.transport
    argv: list[str] = []
    for name in (STDIN, TERMINAL, SSH):
        if name in chardevs:
            argv += ["-device", f"virtserialport,bus=ports.0,chardev={name},name=quizmatrix.{name}"]
    argv += _disks(spec, places)
    if spec.machine.network is not None:
        forwards = "".join(f",hostfwd={forward.option}" for forward in spec.machine.network.forwards)
        argv += ["-netdev", f"user,id=network{forwards}"]
        argv += ["-device", f"virtio-net-{transport},netdev=network{places.next()}"]
    for name in (MONITOR, QMP):
        if name in chardevs:
            argv += ["-mon", f"chardev={name},mode=control"]
    if spec.machine.debugger is not None:
        argv += ["-action", "panic=pause"]
        from quizmatrix.run import debugger

        argv += ["-gdb", f"unix:path={option_value(debugger.socket_of(spec))},server=on,wait=off"]
        argv += ["-S"] if spec.machine.debugger.waits else []
    return argv


def _disks(spec: CellSpec, places: Bus) -> list[str]:
    """The options for the disks. All SCSI disks share one controller."""
    transport = spec.machine.arch.facts.qemu.transport
    argv: list[str] = []
    if any(disk.bus is DiskBus.SCSI for disk in spec.files.disks):
        argv += ["-device", f"virtio-scsi-{transport},id=scsi{places.next()}"]
    for disk in spec.files.disks:
        argv += ["-blockdev", _blockdev(disk)]
        name, size = disk.serial, ""
        if disk.sector != _SECTOR:
            size = f",logical_block_size={disk.sector},physical_block_size={disk.sector}"
        match disk.bus:
            case DiskBus.VIRTIO:
                device = f"virtio-blk-{transport},drive={name},serial={name}{size}{places.next()}"
                argv += ["-device", device]
            case DiskBus.SCSI:
                argv += ["-device", f"scsi-hd,bus=scsi.0,drive={name},serial={name}{size}"]
            case DiskBus.NVME:
                zones = f",zoned=true,zoned.zone_size={disk.zone}M" if disk.zone else ""
                argv += ["-device", f"nvme,id=nvme-{name},serial={name}{places.next()}"]
                argv += ["-device", f"nvme-ns,bus=nvme-{name},drive={name}{size}{zones}"]
    return argv


def _blockdev(disk: Disk) -> str:
    """The value of -blockdev for a disk: a raw file, through blkdebug if the disk has errors.

    Without a path it is a placeholder, which the guest does not look at.
    """
    read_only = "off" if disk.writable else "on"
    if not disk.path:
        return f"driver=null-co,node-name={disk.serial},read-only={read_only},size={1 << 20}"
    file = {"driver": "file", "filename": option_value(disk.path)}
    with contextlib.suppress(OSError):  # QEMU itself reports a missing or unreadable file
        if not filesystem.has_locks(Path(disk.path)):
            file["locking"] = "off"
    if disk.fails:
        # QEMU's document devel/blkdebug.rst. 5: EIO.
        rule = {"event": "none", "iotype": disk.fails, "errno": "5"}
        if disk.fails_at:
            rule["sector"] = str(disk.fails_at // _SECTOR)
        file = {"driver": "blkdebug", **_below("inject-error.0", rule), **_below("image", file)}
    options = {"driver": "raw", "node-name": disk.serial, "read-only": read_only}
    return ",".join(f"{name}={value}" for name, value in (options | _below("file", file)).items())


def _below(name: str, options: dict[str, str]) -> dict[str, str]:
    return {f"{name}.{key}": value for key, value in options.items()}


def command_line(
    spec: CellSpec,
    shares: list[Share],
    chardevs: Mapping[str, str],
    *,
    passed_fd: int | str | None = None,
    memory: Memory | None = None,
) -> list[str]:
    """The argv that boots `spec`.

    shares: all folders of the host that the guest sees.
    chardevs: kind and options (`socket,fd=5`) of each chardev: of CHARDEVS, and of STDIN, TERMINAL, SSH, QMP
    if the cell has them.
    passed_fd: the file descriptor that QEMU inherits and opens as PASSED_FILE.
    memory: where the guest's memory is, if it is to be saved or restored.
    """
    qemu = spec.machine.arch.facts.qemu
    transport = qemu.transport
    argv = _machine(spec, memory)
    argv += ["-add-fd", f"fd={passed_fd},set=1"] if passed_fd is not None else []
    for name in chardevs:
        kind, _, options = chardevs[name].partition(",")
        argv += ["-chardev", f"{kind},id={name}" + (f",{options}" if options else "")]
    argv += qemu.console
    others = len(spec.files.disks) + _others(spec)
    filled = slots.filled(shares, slots.count_for(len(shares), bus.ROOM - others)) if shares else []
    places = Bus(qemu, len(filled) + others)
    argv += _ports(transport, places)
    argv += _extras(spec, chardevs, places)
    for number, share in enumerate(filled):
        argv += _folder(share, slots.name_of(number), transport, places)
    return [*argv, *spec.machine.qemu_words]


def _machine(spec: CellSpec, memory: Memory | None) -> list[str]:
    """QEMU, and the options for the machine and what it boots."""
    machine = spec.machine
    qemu = machine.arch.facts.qemu
    cpus = str(machine.cpus)
    if machine.numa > 1:
        # Each CPU is a socket of its own: the kernel warns of a socket that reaches over nodes.
        cpus += f",sockets={machine.cpus},cores=1,threads=1"
    return [
        qemu.binary,
        *("-name", option_value(spec.labels.cell)),
        *("-machine", (machine.type or qemu.machine.of(machine.accelerator)) + (_BACKED if memory else "")),
        *("-accel", machine.accelerator.value + (",thread=single" if machine.one_thread else "")),
        *("-cpu", qemu.cpu.of(machine.accelerator)),
        *("-smp", cpus),
        *("-m", f"{machine.memory}M"),
        *(memory.options(machine.memory) if memory else ()),
        *(numa.options(machine.numa, machine.memory, machine.cpus, qemu.numa) if machine.numa > 1 else ()),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-kernel", machine.kernel.image),
        *("-initrd", machine.kernel.initramfs),
        *("-append", parameters_of(spec)),
    ]


def _ports(transport: str, places: Bus) -> list[str]:
    """The options for the ports of every guest."""
    argv = ["-device", f"virtio-serial-{transport},id=ports,max_ports=8{places.next()}"]
    for name in PORTS:
        argv += ["-device", f"virtserialport,bus=ports.0,chardev={name},name=quizmatrix.{name}"]
    return argv


def _folder(share: Share, name: str, transport: str, places: Bus) -> list[str]:
    """The options for a folder of the host, in the slot of this name."""
    # security_model=none: files that the guest creates in a --bind belong to the user who runs QEMU.
    # multidevs=remap: the folder may contain other file systems.
    fsdev = f"local,id={name},path={option_value(share.path)},security_model={share.security_model}"
    fsdev += ",multidevs=remap" + ("" if share.writable else ",readonly=on")
    device = f"virtio-9p-{transport},fsdev={name},mount_tag={name}{places.next()}"
    return ["-fsdev", fsdev, "-device", device]
