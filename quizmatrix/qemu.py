"""The QEMU command line, as a pure function of facts and artifacts."""

from __future__ import annotations

from collections.abc import Mapping

from quizmatrix.spec import CellSpec, Share

# The guest's virtio-serial ports, and with the console the chardevs QEMU is given.
PORTS = ("control", "stdout", "stderr")
CHARDEVS = ("console", *PORTS)

# The name under which QEMU opens a file descriptor it was given with -add-fd in set 1.
PASSED_FILE = "/dev/fdset/1"

# An oops stops the guest: what runs after one proves nothing (kernel-parameters.txt).
_COMMAND_LINE = ("oops=panic",)

# QEMU's own seccomp filters (option -sandbox): no new programs, no other user, no setuid.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def option_value(text: str) -> str:
    """A value inside one of QEMU's comma-separated options: a comma is written twice."""
    return text.replace(",", ",,")


def command_line(
    spec: CellSpec,
    shares: list[Share],
    chardevs: Mapping[str, str],
    *,
    passed_fd: int | None = None,
) -> list[str]:
    """The argv that boots `spec`.

    shares: every folder the guest sees. chardevs: for each of CHARDEVS its kind and options
    (`socket,fd=5`). passed_fd: the file descriptor that QEMU inherits as PASSED_FILE.
    """
    qemu = spec.arch.facts.qemu
    kernel = spec.arch.facts.kernel
    transport = qemu.transport
    accelerator = spec.accelerator
    argv = [
        qemu.binary,
        *("-name", option_value(spec.cell)),
        *("-machine", spec.machine or qemu.machine.of(accelerator)),
        *("-accel", accelerator.value),
        *("-cpu", qemu.cpu.of(accelerator)),
        *("-smp", str(spec.cpus)),
        *("-m", f"{spec.memory}M"),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-sandbox", _SANDBOX),
        *("-kernel", spec.image),
        *("-initrd", spec.initramfs),
        *("-append", " ".join([*kernel.command_line, *_COMMAND_LINE])),
    ]
    if passed_fd is not None:
        argv += ["-add-fd", f"fd={passed_fd},set=1"]
    for name in CHARDEVS:
        kind, _, options = chardevs[name].partition(",")
        argv += ["-chardev", f"{kind},id={name}" + (f",{options}" if options else "")]
    argv += qemu.console
    argv += ["-device", f"virtio-serial-{transport},id=ports,max_ports=8"]
    for name in PORTS:
        argv += ["-device", f"virtserialport,bus=ports.0,chardev={name},name=quizmatrix.{name}"]
    for disk in spec.disks:
        read_only = "off" if disk.writable else "on"
        blockdev = f"driver=raw,node-name={disk.serial},read-only={read_only}"
        argv += ["-blockdev", f"{blockdev},file.driver=file,file.filename={option_value(disk.path)}"]
        argv += ["-device", f"virtio-blk-{transport},drive={disk.serial},serial={disk.serial}"]
    for share in shares:
        # security_model=none: files made in /shared belong to the user who runs QEMU.
        # multidevs=remap: a folder may reach over several file systems.
        fsdev = f"local,id={share.tag},path={option_value(share.path)},security_model=none"
        fsdev += ",multidevs=remap" + ("" if share.writable else ",readonly=on")
        argv += ["-fsdev", fsdev]
        argv += ["-device", f"virtio-9p-{transport},fsdev={share.tag},mount_tag={share.tag}"]
    return argv
