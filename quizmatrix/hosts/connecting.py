"""Connects a run to its hosts: to a scheduler that is there, or to one of its own with hosts over ssh."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import anyio
import msgspec
from distributed import Client
from distributed.utils import get_ip

from quizmatrix.core import paths
from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.text import first_of
from quizmatrix.hosts import blobs, engine
from quizmatrix.hosts.cluster import Cluster
from quizmatrix.hosts.security import LOOPBACK, Certificates, check_address, is_loopback
from quizmatrix.hosts.serving import BlobServer, Uploads
from quizmatrix.hosts.sharedstore import SharedStore
from quizmatrix.hosts.supply import Supply
from quizmatrix.hosts.where import HostsKind, Where
from quizmatrix.hosts.workers import workers_of

# Seconds to reach the scheduler.
_CONNECT_LIMIT = 20.0
# Seconds after which a worker that says nothing is given up; dask's own default is five minutes.
_WORKER_SILENCE = 20.0


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a run wants of its hosts.

    where: they are. certificates: by which those of a scheduler know this one. most: bytes of a cell's
    /shared. whole_tree: see Supply. store: where blobs are kept that all hosts reach; None: nowhere. tell:
    is called with what a user should know.
    """

    where: Where
    certificates: Certificates
    most: int
    whole_tree: bool
    store: SharedStore | None = None
    tell: Callable[[str], None]


@asynccontextmanager
async def connected(wishes: Wishes, folder: Path, run: str) -> AsyncIterator[Cluster]:
    """The hosts of a run, until the block ends; then no cell of the run is left on them.

    folder: for what comes in. run: its id. Raises UnpreparedError where no host can be had.
    """
    blobs.prepare()
    engine.configure(logging.CRITICAL)
    async with AsyncExitStack() as stack:
        farm = await _farm(wishes, folder, stack)
        client = await stack.enter_async_context(_client(farm))
        incoming = stack.enter_context(paths.scratch(folder, "incoming"))
        uploads = Uploads(Path(incoming), wishes.most)
        home = BlobServer(uploads)
        is_encrypted = check_address(farm.address)
        context = farm.certificates.context(server=True) if is_encrypted else None
        url = home.start(await _own_address(client), context)
        stack.push_async_callback(_in_any_case, home.stop)
        for failure in await farm.lend(client, home.port):
            wishes.tell(failure)
        if not farm.is_patient:
            await _check_workers(client, farm.address)
        await client.run_on_scheduler(_shorten_silence, seconds=_WORKER_SILENCE)
        cluster = Cluster(
            client,
            Supply(url, wishes.tell, wishes.store, sends_whole_tree=wishes.whole_tree),
            uploads,
            run,
            is_patient=farm.is_patient,
        )
        stack.push_async_callback(_in_any_case, partial(_forget_topic, client, cluster.topic))
        stack.push_async_callback(in_thread, blobs.keep_to_budget)
        async with task_group() as group:
            group.start_soon(cluster.keep_window)
            yield cluster
            group.cancel_scope.cancel()


class Farm(Protocol):
    """The hosts of a run, and its scheduler. is_patient: the run waits for hosts, however long."""

    address: str
    certificates: Certificates
    is_patient: bool

    async def lend(self, client: Any, home: int) -> list[str]:
        """Start the workers; returns a sentence for each host that cannot be had.

        client: of dask. home: the port of the submitter's HTTP server. Raises UnpreparedError.
        """


async def _farm(wishes: Wishes, folder: Path, stack: AsyncExitStack) -> Farm:
    where = wishes.where
    if where.kind is HostsKind.SSH:
        from quizmatrix.hosts.overssh import ssh_farm

        return await stack.enter_async_context(ssh_farm(where.hosts, folder))
    if where.kind is HostsKind.BATCH:
        from quizmatrix.hosts.batch import batch_farm

        return await stack.enter_async_context(batch_farm(where.system, where.file, folder))
    return SchedulerFarm(where.address, wishes.certificates)


class SchedulerFarm:
    """The hosts of a scheduler that is there."""

    def __init__(self, address: str, certificates: Certificates) -> None:
        self.address = address
        self.certificates = certificates
        self.is_patient = False

    async def lend(self, _client: Any, _home: int) -> list[str]:
        """They were lent by their owners."""
        return []


@asynccontextmanager
async def _client(farm: Farm) -> AsyncIterator[Any]:
    security = farm.certificates.security() if check_address(farm.address) else None
    connect: Any = Client  # dask's has no types
    try:
        client = await connect(
            farm.address, security=security, asynchronous=True, timeout=_CONNECT_LIMIT, set_as_default=False
        )
    except (OSError, TimeoutError) as error:
        raise UnpreparedError(
            f"the scheduler {farm.address} cannot be reached",
            cause=str(error),
            next_step="Start it, for instance: dask scheduler (docs/hosts.md).",
        ) from error
    try:
        yield client
    finally:
        await _in_any_case(client.close)


async def _in_any_case(end: Callable[[], Awaitable[None]]) -> None:
    """End something, even if we were cancelled."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(_CONNECT_LIMIT):
        await end()


async def _check_workers(client: Any, address: str) -> None:
    if not await workers_of(client):
        known = await client.scheduler.identity(n_workers=-1)
        others = [worker["host"] for worker in known["workers"].values()]
        cause = f"{first_of(others)} have another version of quizmatrix, or none" if others else ""
        raise UnpreparedError(
            f"the scheduler {address} has no worker for this quizmatrix",
            cause=cause,
            next_step=f"On each host: quizmatrix worker {address}",
        )


def _shorten_silence(seconds: float, dask_scheduler: Any = None) -> None:
    """On the scheduler: give up a worker that says nothing for so long. It looks once in that time."""
    if dask_scheduler.worker_ttl is None or dask_scheduler.worker_ttl > seconds:
        dask_scheduler.worker_ttl = seconds
        if (looks := dask_scheduler.periodic_callbacks.get("worker-ttl")) is not None:
            looks.stop()
            looks.callback_time = seconds / 4 * 1000
            looks.start()


async def _forget_topic(client: Any, topic: str) -> None:
    """Let the scheduler forget what was told of the run: it would keep that for ever."""
    with suppress(Exception):  # it may be gone
        await client.run_on_scheduler(_drop_topic, topic=topic)


def _drop_topic(topic: str, dask_scheduler: Any = None) -> None:
    dask_scheduler._broker._topics.pop(topic, None)


async def _own_address(client: Any) -> str:
    """Our address, as the workers see it."""
    local = urlsplit(client.scheduler_comm.comm.local_address).hostname or LOOPBACK
    others = [worker["host"] for worker in await workers_of(client)]
    # The scheduler is on this host, and workers are on others.
    if is_loopback(local) and not all(map(is_loopback, others)):
        find: Any = get_ip  # dask's has no types
        return str(find())
    return local
