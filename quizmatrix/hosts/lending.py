"""Lends this host to the runs of others: `quizmatrix worker`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import msgspec

from quizmatrix.core import process
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UnpreparedError, host_error
from quizmatrix.core.memory import available_memory
from quizmatrix.hosts import blobs, engine, workerfolder
from quizmatrix.hosts.forker import Forker
from quizmatrix.hosts.lenthost import LentHost
from quizmatrix.hosts.placing import resources_of_this_host
from quizmatrix.hosts.security import LOOPBACK, PLAIN, Certificates, check_address, is_loopback
from quizmatrix.hosts.serving import BlobServer
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
    cpus = lent.cpus or process.usable_cpus()
    memory = lent.memory or int(available_memory() * MEMORY_SHARE)
    with ExitStack() as stack:
        try:
            blobs.prepare()
            scratch = await workerfolder.make(stack)
        except OSError as error:
            raise host_error("write the cache", error) from error
        options = {
            "security": security,
            "nthreads": cpus,
            "resources": resources_of_this_host(cpus, memory),
            "local_directory": str(scratch),
            "name": lent.name,
        }
        processes, server = Forker(), BlobServer()
        host = LentHost(cpus, host_admission(None, scratch, memory=lent.memory), scratch, processes, context)
        try:
            await processes.start()
            # It is set up before the scheduler knows of this worker, and sends orders.
            worker = await _connected(address, options | _place_of(address, lent.port) | {"plugins": [host]})
            if lent.port is None:
                # Other hosts reach this one; over ssh they do not.
                server_context = certificates.context(server=True) if is_encrypted else None
                server.start(urlsplit(worker.address).hostname or LOOPBACK, server_context)
                host.serves_at(server.url)
            print(f"quizmatrix: lent to {address}: {cpus} CPUs, {memory} MiB", file=sys.stderr, flush=True)
            async with task_group() as group:
                group.start_soon(_close_on_signal, worker)
                if lent.ends_with_stdin:
                    group.start_soon(_close_with_stdin, worker)
                await worker.finished()
                group.cancel_scope.cancel()
        finally:
            await processes.stop()
            await server.stop()


def _place_of(address: str, port: int | None) -> dict[str, Any]:
    """Where the worker listens. address: of the scheduler. port: see Lent."""
    scheme = address.partition("://")[0]
    if port is not None:
        return {"host": LOOPBACK, "port": port, "contact_address": f"{scheme}://{LOOPBACK}:{port}"}
    if scheme == PLAIN:
        # Else dask listens on all interfaces, and whoever connects may run anything.
        return {"host": "[::1]" if "[" in address else LOOPBACK}
    own = _own_address_towards(address)
    # On the scheduler's own host, others have to reach the worker, too.
    return {} if not own or is_loopback(own) else {"host": f"[{own}]" if ":" in own else own}


def _own_address_towards(address: str) -> str:
    """This host's address on the way to the scheduler; empty if unknown. Dask takes that to the internet."""
    there = urlsplit(address)
    with suppress(OSError):
        for family, kind, protocol, _, target in socket.getaddrinfo(
            there.hostname, there.port, type=socket.SOCK_DGRAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0])
    return ""


async def _connected(address: str, options: dict[str, Any]) -> Any:
    from distributed import Worker

    options |= {
        # Jobs are processes of their own: dask's limits of memory are not for them.
        "memory_limit": 0,
        "dashboard": False,
        "dashboard_address": f"{LOOPBACK}:0",
        "death_timeout": _CONNECT_LIMIT,
    }
    engine.configure(logging.ERROR)
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
