"""Which hosts may run a job: what it needs, and what hosts say of themselves, as resources of dask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quizmatrix.core.errors import UsageError
from quizmatrix.hosts.version import version
from quizmatrix.model.arch import Accelerator, host_arch
from quizmatrix.model.job import CellJob
from quizmatrix.run.accelerator import without_trial
from quizmatrix.schedule.admission import QEMU_MEMORY, Need

# CPUs, and MiB of memory.
CPUS, MEMORY = "cpus", "memory"

# Of a resource that only says what a host is.
_ANY_NUMBER = 1 << 30


def resource() -> str:
    """The resource that workers with this version of quizmatrix have."""
    return f"quizmatrix {version()}"


def native(arch: str) -> str:
    """The resource of hosts of an architecture whose guests KVM runs."""
    return f"native {arch}"


def resources_of_this_host(cpus: int, memory: int) -> dict[str, int]:
    """What this host says of itself. cpus; memory: MiB."""
    found = {CPUS: cpus, MEMORY: memory, resource(): _ANY_NUMBER}
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


def resources_for(job: CellJob, hosts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The resources that a host needs for a job. hosts: the resources of each.

    A host where the guest is not emulated is preferred to all others. A guest that is larger than any host
    runs there alone, as it would on a host of its own.
    """
    need = need_of_job(job)
    wanted: dict[str, float] = {resource(): 1}
    if job.machine.accelerator is not Accelerator.TCG:
        own = native(job.machine.arch)
        fast = [host for host in hosts if host.get(own)]
        if fast:
            hosts = fast
            wanted[own] = 1
    for name, asked in ((CPUS, need.cpus), (MEMORY, need.memory)):
        wanted[name] = min(asked, max((host.get(name, 0) for host in hosts), default=asked))
    return wanted
