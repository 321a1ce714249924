"""Lends this host to the runs of others: `quizmatrix worker`."""

from __future__ import annotations

import logging
import os
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
from quizmatrix.hosts.lenthost import LentHost
from quizmatrix.hosts.placing import resources_of_this_host
from quizmatrix.hosts.security import LOOPBACK, Certificates, check_address
from quizmatrix.schedule.admission import MEMORY_SHARE, host_admission

# Seconds to reach the scheduler.
_CONNECT_LIMIT = 30


class Lent(msgspec.Struct, frozen=True, kw_only=True):
    """How this host is lent.

    cpus; memory: MiB: what all guests may have; None: what those of a local run may. name: for the scheduler.
    port: the worker listens there, on the loopback alone. ends_with_stdin: the worker does.
    """

    cpus: int | None = None
    memory: int | None = None
    name: str | None = None
    port: int | None = None
    ends_with_stdin: bool = False


async def lend(address: str, certificates: Certificates, lent: Lent) -> None:
    """Run what the scheduler at `address` hands to this host, until it ends or a signal comes.

    Raises UnpreparedError where the scheduler cannot be reached, UsageError where the address is wrong.
    """
    is_encrypted = check_address(address)
    security = certificates.security() if is_encrypted else None
    context = certificates.context() if is_encrypted else None
    blobs.budget()
    try:
        blobs.prepare()
    except OSError as error:
        raise host_error("write the cache", error) from error
    cpus = lent.cpus or process.usable_cpus()
    memory = lent.memory or int(available_memory() * MEMORY_SHARE)
    with paths.scratch(blobs.BLOBS.root.parent, "worker") as scratch:
        options: dict[str, Any] = {
            "security": security,
            "nthreads": cpus,
            # Jobs are processes of their own: dask's limits of memory are not for them.
            "memory_limit": 0,
            "resources": resources_of_this_host(cpus, memory),
            "local_directory": scratch,
            "dashboard": False,
            "death_timeout": _CONNECT_LIMIT,
            "name": lent.name,
        }
        if not is_encrypted:
            # Else dask listens on all interfaces, and whoever connects may run anything.
            options["host"] = "[::1]" if "[" in address else LOOPBACK
        if lent.port is not None:
            own = f"{address.partition('://')[0]}://{LOOPBACK}:{lent.port}"
            options |= {"host": LOOPBACK, "port": lent.port, "contact_address": own}
        worker = await _connected(address, options)
        admission = host_admission(None, Path(scratch), memory=lent.memory)
        await worker.plugin_add(plugin=LentHost(admission, context))
        print(f"quizmatrix: lent to {address}: {cpus} CPUs, {memory} MiB", file=sys.stderr, flush=True)
        async with task_group() as group:
            group.start_soon(_close_on_signal, worker)
            if lent.ends_with_stdin:
                group.start_soon(_close_with_stdin, worker)
            await worker.finished()
            group.cancel_scope.cancel()


async def _connected(address: str, options: dict[str, Any]) -> Any:
    from distributed import Worker

    dask.config.set({"distributed.worker.daemon": False})
    logging.getLogger("distributed").setLevel(logging.ERROR)
    worker = Worker(address, **options)
    try:
        return await worker
    except (OSError, TimeoutError, RuntimeError) as error:
        raise UnpreparedError(
            f"the scheduler {address} cannot be reached",
            cause=str(error.__cause__ or error),
            next_step="Start it, for instance: dask scheduler",
        ) from error


async def _close_with_stdin(worker: Any) -> None:
    while True:
        await anyio.wait_readable(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            break
    await worker.close(reason="its submitter is gone")


async def _close_on_signal(worker: Any) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            await worker.close(reason="a signal")
