"""Templates: booted guests that were saved, so that later runs restore them in place of booting.

A template is a guest at the point where it waits for its host (guest/init1). Nothing of a run is in it. Its
memory is a file that any number of guests map at the same time, each with its own copy of what it writes to.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process, sparse, units, uses
from quizmatrix.core.checksum import Checksum, checksum_of
from quizmatrix.core.errors import DamagedError, UnpreparedError
from quizmatrix.core.store import Store, key_of
from quizmatrix.model.arch import Accelerator, DiskBus
from quizmatrix.model.spec import BASE_DISK, CellSpec, Disk, Labels, Share
from quizmatrix.run import ends, qemu

# Part of every key; has to be changed when a guest is saved or restored differently.
_RECIPE = "2"

TEMPLATES = Store(what="template", folder="templates", record="{}/template.json", lock="template-{}")

# Seconds after which a template is made anew: what its guests have in common is not to last.
_LASTS = 86400.0

# By series, the first stable release with the random generator of 5.18.
_TAKEN_OVER = {(5, 10): 119}

# The variable with the size that all templates may have, and the size in bytes without it.
BUDGET_VARIABLE = "QUIZMATRIX_TEMPLATES"
_BUDGET = 4 << 30

# The folders of templates that are being made.
SCRATCH = "save"

# Of the files of a template: the memory, the devices' state, and what the guest had printed.
MEMORY, STATE, CONSOLE = "memory", "state", "console.log"

# The lines of /proc/cpuinfo that say which CPU it is: of x86, ARM, s390, POWER, RISC-V and LoongArch. Others
# change all the time, such as the frequency.
_CPU = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
    *("features", "facilities", "processor 0"),
    *("cpu", "revision"),
    *("isa", "uarch", "mvendorid", "marchid", "mimpid"),
    *("CPU Family", "Model Name", "CPU Revision"),
}

_CPUINFO = Path("/proc/cpuinfo")

# Changes when the host boots.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A stored template (its template.json).

    made: when, in seconds since 1970. boot: during which boot of the host; a file that was written before a
    power failure may have holes. is_read_only: see qemu.Memory.
    """

    key: str
    made: float
    boot: str
    memory: Checksum
    state: Checksum
    console: Checksum
    is_read_only: bool = False

    @property
    def folder(self) -> Path:
        """Where it is stored."""
        return TEMPLATES.path(self.key)

    @property
    def memory_file(self) -> Path:
        """The guest's memory."""
        return self.folder / MEMORY

    @property
    def state_file(self) -> Path:
        """The state of its devices."""
        return self.folder / STATE

    @property
    def console_file(self) -> Path:
        """What it had printed."""
        return self.folder / CONSOLE

    @property
    def files(self) -> list[tuple[Checksum, Path]]:
        """Its files, each with its checksum."""
        return [
            (self.memory, self.memory_file),
            (self.state, self.state_file),
            (self.console, self.console_file),
        ]


def why_not(spec: CellSpec) -> str:
    """Why a guest cannot be saved and restored; empty if it can. Raises UsageError as `budget` does."""
    machine = spec.machine
    if budget() == 0:
        return f"{BUDGET_VARIABLE} is 0"
    if machine.qemu_words:
        return "it has options of QEMU of its own (--qemu)"
    if machine.debugger is not None:
        return "a debugger follows it from its start"
    if not machine.kernel.has_9p:
        return "its kernel has no 9p, so its layers are disks that it finds as it boots"
    if not _renews(machine.kernel.version):
        return f"a restored {machine.kernel.version or 'kernel'} may give the same random numbers again"
    if machine.numa > 1:
        return "its memory is in several NUMA nodes"
    if buses := {disk.bus for disk in _own_disks(spec)} - {DiskBus.VIRTIO}:
        return f"QEMU cannot save disks on {', '.join(sorted(buses))}"
    return ""


def _renews(version: str) -> bool:
    """Whether all random numbers of this kernel are new once its generator was reseeded.

    So it is from 5.18 on, and in the stable releases that took over its code (drivers/char/random.c). Before,
    get_random_long(), which ASLR uses, went on with numbers that were made earlier.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        return False
    major, minor, patch = (int(number or 0) for number in match.groups())
    taken_over = _TAKEN_OVER.get((major, minor))
    return (major, minor) >= (5, 18) or (taken_over is not None and patch >= taken_over)


def key_for(spec: CellSpec, shares: list[Share]) -> str:
    """The key of the template for a guest: a hash of all that its machine is made of, and of nothing else."""
    chardevs = dict.fromkeys([ends.CONSOLE, *qemu.ports_of(spec, with_qmp=True)], "socket")
    # What is in a slot is the host's affair; the guest sees the slots.
    neutral = [Share(tag="", path="")] * len(shares)
    argv = qemu.command_line(_without_run(spec), neutral, chardevs)
    facts = spec.machine.arch.facts.qemu
    files = [process.require_program(facts.binary, facts.package), spec.machine.kernel.image]
    files += [
        spec.machine.kernel.initramfs,
        *(disk.path for disk in spec.files.disks if disk.serial == BASE_DISK),
    ]
    made = [_RECIPE, *argv, *map(_identity, files)]
    if spec.machine.accelerator is Accelerator.KVM:
        made += [os.uname().release, *_host_cpu()]
    return f"{spec.machine.arch.name}-{key_of(made)}"


def _without_run(spec: CellSpec) -> CellSpec:
    """The specification without what differs from run to run: as it is when a template is made of it."""
    machine = spec.machine
    network = msgspec.structs.replace(machine.network, forwards=[]) if machine.network else None
    disks = [
        disk if disk.serial == BASE_DISK else msgspec.structs.replace(disk, path="", fails="")
        for disk in spec.files.disks
    ]
    return msgspec.structs.replace(
        spec,
        labels=Labels(cell="template", kernel="", release=""),
        machine=msgspec.structs.replace(machine, network=network),
        files=msgspec.structs.replace(spec.files, disks=disks),
    )


def find(key: str, *, thoroughly: bool = False) -> Template | None:
    """A stored template that can still be used; DamagedError if its files are not what was stored.

    thoroughly: they are read.
    """
    found = TEMPLATES.read(key, Template)
    if found is None or time.time() - found.made > _LASTS or found.boot != _boot():
        return None
    for checksum, path in found.files:
        if not checksum.matches(path, thoroughly=thoroughly, digest=sparse.digest_of):
            raise DamagedError(f"the template {key} is damaged", cause=f"{path.name} is not what was stored")
    return found


def complete(folder: Path, key: str, *, is_read_only: bool = False) -> None:
    """Write the record of a template whose files are in `folder`. Raises OSError."""
    sums = {name: checksum_of(folder / name, sparse.digest_of) for name in (MEMORY, STATE, CONSOLE)}
    record = Template(
        key=key,
        made=time.time(),
        boot=_boot(),
        memory=sums[MEMORY],
        state=sums[STATE],
        console=sums[CONSOLE],
        is_read_only=is_read_only,
    )
    (folder / TEMPLATES.record_of(key).name).write_bytes(msgspec.json.encode(record))


def drop(key: str) -> bool:
    """Remove a template, if there is one that nobody uses. Whether there is none now."""
    place = TEMPLATES.path(key)
    with uses.unused(place) as nobody_uses_it:
        if nobody_uses_it:
            with suppress(UnpreparedError):
                TEMPLATES.discard(place)
    return not place.exists()


def note_use(template: Template) -> None:
    """Record that a template is used: those that were used last are kept."""
    with suppress(OSError):
        os.utime(TEMPLATES.record_of(template.key))


def budget() -> int:
    """How many bytes all templates may have: QUIZMATRIX_TEMPLATES, or 4 GiB. 0: none is made or used.

    Raises UsageError if the variable's value is no size.
    """
    text = os.environ.get(BUDGET_VARIABLE)
    if text == "0":
        return 0
    return units.checked(BUDGET_VARIABLE, text, units.parse_size) << 20 if text else _BUDGET


def stored() -> list[tuple[float, int, Path]]:
    """All templates: when each was used last, its size on disk in bytes, and its folder. The latest first."""
    found = []
    for key in TEMPLATES.stored():
        with suppress(OSError):
            folder = TEMPLATES.path(key)
            size = sum(path.stat().st_blocks for path in folder.iterdir()) * 512
            found.append((TEMPLATES.record_of(key).stat().st_mtime, size, folder))
    return sorted(found, reverse=True)


def keep_to_budget() -> None:
    """Remove the templates that were used longest ago, as far as all are larger than their budget."""
    left = budget()
    for _, size, folder in stored():
        left -= size
        if left < 0:
            drop(folder.name)
    paths.remove_left_behind([*TEMPLATES.root.glob(f".{SCRATCH}.*"), *TEMPLATES.root.glob(".*.removed")])


def _own_disks(spec: CellSpec) -> list[Disk]:
    return [disk for disk in spec.files.disks if disk.serial != BASE_DISK]


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _identity(path: str) -> str:
    """A text that changes when a file does."""
    real = Path(path).resolve()
    now = real.stat()
    # Some packages have all files of the same mtime, under other paths.
    return f"{path} {real} {now.st_size} {now.st_mtime_ns}"


def _host_cpu() -> list[str]:
    """What identifies the host's CPU, which a guest under KVM sees."""
    lines = _CPUINFO.read_text(errors="replace").split("\n\n")[0].splitlines()
    return [line for line in lines if line.partition(":")[0].strip() in _CPU]
