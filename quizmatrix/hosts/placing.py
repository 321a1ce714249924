"""Which hosts may run a job: what it needs, and what hosts say of themselves, as resources of dask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import UsageError
from quizmatrix.core.store import key_of
from quizmatrix.hosts.version import version
from quizmatrix.model.arch import Accelerator, arch_names, host_arch, load_arch
from quizmatrix.model.job import CellJob
from quizmatrix.model.start import StartKind
from quizmatrix.run.accelerator import without_trial
from quizmatrix.schedule.admission import QEMU_MEMORY, Need

# CPUs, and MiB of memory.
CPUS, MEMORY = "cpus", "memory"

# The metric with the shapes that a host has run, and how many of the last ones it names.
SHAPES = "quizmatrix shapes"
MOST_SHAPES = 100

# MiB of memory for the build of a kernel.
_BUILD_MEMORY = 2048

# Of a resource that only says what a host is.
_ANY_NUMBER = 1 << 30


def resource() -> str:
    """The resource that workers with this version of quizmatrix have."""
    return f"quizmatrix {version()}"


def native(arch: str) -> str:
    """The resource of hosts of an architecture whose guests KVM runs."""
    return f"native {arch}"


def emulator(arch: str) -> str:
    """The resource of hosts that have QEMU for an architecture."""
    return f"qemu {arch}"


def resources_of_this_host(cpus: int, memory: int) -> dict[str, int]:
    """What this host says of itself. cpus; memory: MiB."""
    found = {CPUS: cpus, MEMORY: memory, resource(): _ANY_NUMBER}
    for name in arch_names():
        if process.find_program(load_arch(name).facts.qemu.binary) is not None:
            found[emulator(name)] = _ANY_NUMBER
    try:
        arch = host_arch()
    except UsageError:  # there is no file for it in arch/
        return found
    answer = without_trial(arch)
    # Without an answer, the first guest will be a trial of KVM.
    if answer is None or answer.accelerator is Accelerator.KVM:
        found[native(arch.name)] = _ANY_NUMBER
    return found


def need_of_job(job: CellJob) -> Need:
    """What a job's guest needs of a host."""
    return Need(cpus=job.machine.cpus, memory=job.machine.memory + QEMU_MEMORY)


def need_of_build(cpus: int) -> Need:
    """What the build of a kernel needs of a host with so many CPUs: all of them."""
    return Need(cpus=cpus, memory=_BUILD_MEMORY)


def resources_for_build(hosts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The resources that a host needs for the build of a kernel: any can, and each builds one at a time."""
    wanted: dict[str, float] = {resource(): 1}
    for name in (CPUS, MEMORY):
        least = min((host.get(name, 0) for host in hosts if host.get(resource())), default=1)
        wanted[name] = least if name == CPUS else min(least, _BUILD_MEMORY)
    return wanted


def shape_of(job: CellJob) -> str:
    """A name of all that shapes a job's guest before it has started: guests of one shape share a template.

    Empty where it may have none. It is not the template's own key, which a host finds for itself.
    """
    if job.machine.start is StartKind.COLD:
        return ""
    machine = msgspec.structs.replace(job.machine, start=None)
    disks = [disk.path for disk in job.files.disks]
    return key_of([repr(machine), job.kernel.key, job.kernel.initramfs, job.kernel.parameters, *disks])


def can_take(host: Mapping[str, Any], wanted: Mapping[str, float]) -> bool:
    """Whether a host, as the scheduler describes it, has these resources, be they in use or not."""
    return all(host["resources"].get(name, 0) >= amount for name, amount in wanted.items())


def warm_host(
    shape: str, hosts: Sequence[Mapping[str, Any]], wanted: Mapping[str, float], busy: Mapping[str, int]
) -> str | None:
    """The address of a host that has run this shape, so that it has a template, and has room now.

    hosts: as the scheduler describes them. wanted: the resources of the job. busy: how many jobs each has.
    """
    for host in hosts:
        if shape in host["metrics"].get(SHAPES, ()):
            room = min(host["resources"].get(name, 0) // (wanted[name] or 1) for name in (CPUS, MEMORY))
            if can_take(host, wanted) and busy.get(host["address"], 0) < room:
                return str(host["address"])
    return None


def resources_for(job: CellJob, hosts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The resources that a host needs for a job. hosts: the resources of each.

    A host where the guest is not emulated is preferred to all others. Without QEMU for the guest on any, each
    says what is missing. A guest that is larger than any host
    runs there alone, as it would on a host of its own.
    """
    need = need_of_job(job)
    wanted: dict[str, float] = {resource(): 1}
    has_qemu = emulator(job.machine.arch)
    if with_it := [host for host in hosts if host.get(has_qemu)]:
        hosts = with_it
        wanted[has_qemu] = 1
    if job.machine.accelerator is not Accelerator.TCG:
        own = native(job.machine.arch)
        fast = [host for host in hosts if host.get(own)]
        if fast:
            hosts = fast
            wanted[own] = 1
    for name, asked in ((CPUS, need.cpus), (MEMORY, need.memory)):
        wanted[name] = min(asked, max((host.get(name, 0) for host in hosts), default=asked))
    return wanted
