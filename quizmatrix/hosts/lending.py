"""Lends this host to the runs of others: `quizmatrix worker`."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import dask
import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UnpreparedError, host_error
from quizmatrix.core.memory import available_memory
from quizmatrix.hosts import blobs
from quizmatrix.hosts.lenthost import CPUS, MEMORY, LentHost, resource
from quizmatrix.hosts.security import Certificates, check_address
from quizmatrix.schedule.admission import MEMORY_SHARE, host_admission

# Seconds to reach the scheduler.
_CONNECT_LIMIT = 30
# Of a resource that only says what a worker is.
_ANY_NUMBER = 1 << 30


class Lent(msgspec.Struct, frozen=True, kw_only=True):
    """What of this host all guests may have. cpus; memory: MiB. None: what those of a local run may."""

    cpus: int | None = None
    memory: int | None = None


async def lend(address: str, certificates: Certificates, lent: Lent) -> None:
    """Run what the scheduler at `address` hands to this host, until it ends or a signal comes.

    Raises UnpreparedError where the scheduler cannot be reached, UsageError where the address is wrong.
    """
    is_encrypted = check_address(address)
    security = certificates.security() if is_encrypted else None
    context = certificates.context() if is_encrypted else None
    try:
        blobs.prepare()
    except OSError as error:
        raise host_error("write the cache", error) from error
    cpus = lent.cpus or process.usable_cpus()
    memory = lent.memory or int(available_memory() * MEMORY_SHARE)
    with paths.scratch(blobs.BLOBS.root.parent, "worker") as scratch:
        worker = await _connected(address, security, cpus, memory, scratch)
        await worker.plugin_add(plugin=LentHost(host_admission(None, Path(scratch)), context))
        print(f"quizmatrix: lent to {address}: {cpus} CPUs, {memory} MiB", file=sys.stderr, flush=True)
        async with task_group() as group:
            group.start_soon(_close_on_signal, worker)
            await worker.finished()
            group.cancel_scope.cancel()


async def _connected(address: str, security: Any, cpus: int, memory: int, scratch: str) -> Any:
    from distributed import Worker

    # Jobs are processes of their own: dask's limits of memory are not for them.
    dask.config.set({"distributed.worker.daemon": False})
    logging.getLogger("distributed").setLevel(logging.ERROR)
    worker = Worker(
        address,
        security=security,
        nthreads=cpus,
        memory_limit=0,
        resources={CPUS: cpus, MEMORY: memory, resource(): _ANY_NUMBER},
        local_directory=scratch,
        dashboard=False,
        death_timeout=_CONNECT_LIMIT,
    )
    try:
        return await worker
    except (OSError, TimeoutError, RuntimeError) as error:
        raise UnpreparedError(
            f"the scheduler {address} cannot be reached",
            cause=str(error.__cause__ or error),
            next_step="Start it, for instance: dask scheduler",
        ) from error


async def _close_on_signal(worker: Any) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            await worker.close(reason="a signal")
