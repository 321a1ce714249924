"""What --on says: where the hosts of a run are."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from quizmatrix.core.errors import UnpreparedError, UsageError
from quizmatrix.hosts.security import check_address

# A host as ssh(1) takes it: not an option, nor anything that a shell could read otherwise.
_SSH_HOST = re.compile(r"(?!-)[\w.@:%\[\]-]+", re.ASCII)


class HostsKind(StrEnum):
    """How the hosts are had."""

    SCHEDULER = "scheduler"
    SSH = "ssh"
    BATCH = "batch"


class BatchSystem(StrEnum):
    """A batch system."""

    SLURM = "slurm"
    PBS = "pbs"
    LSF = "lsf"
    HTCONDOR = "htcondor"
    SGE = "sge"


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a run.

    address: of a scheduler that is there. hosts: those of `ssh:`. system: of batch jobs; file: with options.
    """

    kind: HostsKind
    address: str = ""
    hosts: tuple[str, ...] = ()
    system: BatchSystem = BatchSystem.SLURM
    file: str = ""


def parse(text: str) -> Where:
    """Parse the value of --on. UsageError where it is wrong, or a connection would not be encrypted."""
    kind, colon, rest = text.partition(":")
    if colon and kind == HostsKind.SSH:
        hosts = tuple(rest.split(","))
        for host in hosts:
            if not _SSH_HOST.fullmatch(host):
                raise UsageError(
                    f"--on {text}", cause=f"`{host}` is no host", next_step="Write ssh:big1,me@big2."
                )
        if len(set(hosts)) < len(hosts):
            raise UsageError(
                f"--on {text} names a host twice", next_step="A host takes as many cells as it can."
            )
        return Where(kind=HostsKind.SSH, hosts=hosts)
    if kind in {*BatchSystem}:
        return Where(kind=HostsKind.BATCH, system=BatchSystem(kind), file=rest)
    check_address(text)
    return Where(kind=HostsKind.SCHEDULER, address=text)


def missing_extra(error: ImportError) -> UnpreparedError:
    """The error where dask.distributed is not installed."""
    return UnpreparedError(
        "other hosts need dask.distributed, which is not installed",
        cause=str(error),
        next_step="pip install 'quizmatrix[hosts]'",
    )
