"""Hosts for one run from a batch system: each of its jobs is a worker, started by dask-jobqueue."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from quizmatrix.core import paths, process, units
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.hosts import batchworker
from quizmatrix.hosts.batchfile import BatchFile, read_options
from quizmatrix.hosts.security import LOOPBACK, Certificates, make_certificates
from quizmatrix.hosts.where import BatchSystem

# Of each system: its class in dask-jobqueue, and the program that submits a job, with its Debian package.
_SYSTEMS = {
    BatchSystem.SLURM: ("SLURMCluster", "sbatch", "slurm-client"),
    BatchSystem.PBS: ("PBSCluster", "qsub", "openpbs-client"),
    BatchSystem.LSF: ("LSFCluster", "bsub", "lsf"),
    BatchSystem.HTCONDOR: ("HTCondorCluster", "condor_submit", "htcondor"),
    BatchSystem.SGE: ("SGECluster", "qsub", "gridengine-client"),
}

# Seconds to submit all jobs, and to end them.
_SUBMIT_LIMIT = 300.0
_END_LIMIT = 60.0


class BatchFarm:
    """The hosts. address: of the run's scheduler."""

    def __init__(self, cluster: Any, certificates: Certificates, wanted: BatchFile) -> None:
        """cluster: dask-jobqueue's, started."""
        self.address: str = cluster.scheduler_address
        self.certificates = certificates
        # They join when the batch system lets them, perhaps in hours.
        self.is_patient = True
        self._cluster = cluster
        self._wanted = wanted

    async def lend(self, _client: Any, _home: int) -> list[str]:
        """Submit the jobs. Raises UnpreparedError where the batch system refuses them."""
        self._cluster.scale(jobs=self._wanted.jobs)
        try:
            with anyio.fail_after(_SUBMIT_LIMIT):
                await self._cluster
        except (RuntimeError, OSError, ValueError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise UnpreparedError("the batch system takes no job", cause=" ".join(lines[-3:])) from error
        return []


@asynccontextmanager
async def batch_farm(system: BatchSystem, path: str, folder: Path) -> AsyncIterator[BatchFarm]:
    """A scheduler for the run, and its hosts, whose jobs `lend` submits. path: of the file with options.

    folder: for the certificates of the run, which the hosts read: on a file system that they have, too.
    """
    import dask_jobqueue

    wanted = read_options(system, path)
    name, program, package = _SYSTEMS[system]
    process.require_program(program, package)
    logging.getLogger("distributed.deploy").setLevel(logging.CRITICAL)
    with paths.scratch(folder, "batch") as scratch:
        certificates = Certificates(folder=Path(scratch) / "certificates")
        make_certificates(certificates.folder)
        try:
            made = getattr(dask_jobqueue, name)(
                cores=wanted.cpus,
                memory=f"{units.parse_size(wanted.memory)}MiB",
                processes=1,
                security=certificates.security(),
                worker_command=batchworker.__name__,
                asynchronous=True,
                scheduler_options={"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"},
                **{"job_name": "quizmatrix", **wanted.options},
            )
            cluster = await made
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            raise UnpreparedError(f"jobs for {system} cannot be made", cause=str(error)) from error
        try:
            yield BatchFarm(cluster, certificates, wanted)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_END_LIMIT), suppress(RuntimeError):
                await cluster.close()
