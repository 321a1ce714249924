"""A host that is lent to others: runs the orders that dask hands to it, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from quizmatrix.core import paths, untrusted, uses
from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import HostError, QuizmatrixError, host_error
from quizmatrix.core.store import name_of
from quizmatrix.hosts import blobs, cellprocess, incoming
from quizmatrix.hosts.disks import placed
from quizmatrix.hosts.fetching import HomeClient, HomeClients
from quizmatrix.hosts.forker import Forker
from quizmatrix.hosts.forkserver import SAID
from quizmatrix.hosts.hostfacts import facts_for
from quizmatrix.hosts.messages import (
    Answered,
    CellOrder,
    HostOrder,
    Told,
    answered_with,
    decoded,
    decoded_order,
    encoded,
)
from quizmatrix.hosts.packing import pack_cell, pack_folder
from quizmatrix.hosts.placing import (
    MOST_SHAPES,
    SHAPES,
    native,
    need_of_build,
    need_of_job,
    resource,
    shape_of,
)
from quizmatrix.hosts.sharedstore import SharedStores
from quizmatrix.kernel.artifact import KERNELS
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.result import HostFacts
from quizmatrix.run.cellfolder import handed_disks_of
from quizmatrix.schedule.admission import Admission

NAME = "quizmatrix"

# How many blobs are fetched at a time.
_FETCHES = 4
# After so many orders in a row that failed because of the host, it takes no more.
_MOST_FAILURES = 3
# Seconds between two looks at the size of the store.
_TIDY_PAUSE = 60.0

# States of dask in which nobody wants the result of a task that runs any more.
_UNWANTED = frozenset({"released", "cancelled", "forgotten", "error"})


TellSubmitter = Callable[[str, object], None]


async def run_order(key: str, data: bytes) -> bytes:
    """The task that dask runs on a worker. key: the task's. data: a HostOrder; returns an Answered."""
    worker = get_worker()
    host = worker.plugins[NAME]
    if not isinstance(host, LentHost):
        raise TypeError("this worker was not started by quizmatrix")
    order = decoded_order(data)
    answered = await host.answer(key, order, worker.log_event)
    gone = {resource()} if host.is_set_aside else set()
    if answered.result is not None and answered.result.accelerator is Accelerator.TCG:
        # If it had a KVM, that has run no guest.
        gone.add(native(answered.result.arch))
    if gone := gone.intersection(worker.state.total_resources):
        # The scheduler alone is told: orders that are here already need the resources to be answered.
        resources = {**worker.state.total_resources, **dict.fromkeys(gone, 0)}
        await worker.scheduler.set_resources(resources=resources, worker=worker.contact_address)
    return encoded(msgspec.structs.replace(answered, worker=worker.address))


class LentHost(WorkerPlugin):
    """What a worker has beside dask: the store, the admission, and the jobs that run.

    is_set_aside: it takes no more orders, as it could not run the last ones.
    """

    name = NAME

    def __init__(
        self,
        cpus: int,
        admission: Admission,
        folder: Path,
        processes: Forker,
        context: ssl.SSLContext | None,
    ) -> None:
        """cpus: that are lent. folder: for the jobs' files. context: for TLS connections to submitters."""
        self.is_set_aside = False
        self._cpus = cpus
        self._admission = admission
        self._folder = folder
        self._processes = processes
        self._homes = HomeClients(context)
        self._shapes: dict[str, None] = {}
        self._stores = SharedStores()
        self._fetches = anyio.CapacityLimiter(_FETCHES)
        self._unwanted: dict[str, asyncio.Event] = {}
        self._failures = 0
        self._tidied = -_TIDY_PAUSE

    def serves_at(self, url: str) -> None:
        """Tell submitters from now on that other hosts can fetch from this one, at `url`."""
        self._homes.own_server = url

    def setup(self, worker: Any) -> None:
        """Called by dask: from now on, the scheduler is told which shapes this host has templates for."""
        worker.metrics[SHAPES] = lambda _worker: list(self._shapes)

    def transition(self, key: object, start: str, finish: str, **_more: object) -> None:
        """Called by dask when a task changes its state. A running one that nobody wants is stopped."""
        if start == "executing" and finish in _UNWANTED and (stop := self._unwanted.get(str(key))):
            stop.set()

    async def answer(self, key: str, order: HostOrder, log: TellSubmitter) -> Answered:
        """Carry out an order. log: tells the submitter what happens, under a topic."""
        facts = facts_for(order.arch)
        if self.is_set_aside:
            return answered_with(facts, HostError("it takes no more cells"))
        stop = self._unwanted[key] = asyncio.Event()
        answered = Answered(host=facts, error="it was stopped")
        try:
            async with task_group() as group:

                async def watch() -> None:
                    await stop.wait()
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                answered = msgspec.structs.replace(await self._try(key, order, facts, log), host=facts)
                group.cancel_scope.cancel()
        finally:
            del self._unwanted[key]
        if isinstance(order, CellOrder) and answered.result is not None and answered.result.start is not None:
            self._note_shape(shape_of(order.job))
        if isinstance(order, CellOrder):
            # A host without compilers runs guests all the same.
            self._failures = self._failures + 1 if answered.is_hosts_fault else 0
        if self._failures == _MOST_FAILURES:
            self.is_set_aside = True
            text = f"quizmatrix: takes no more cells, after {_MOST_FAILURES} that it could not run"
            print(f"{text}: {answered.error}", file=sys.stderr, flush=True)
        return answered

    def _note_shape(self, shape: str) -> None:
        if shape:
            self._shapes.pop(shape, None)
            self._shapes[shape] = None
            if len(self._shapes) > MOST_SHAPES:
                del self._shapes[next(iter(self._shapes))]

    async def _try(self, key: str, order: HostOrder, facts: HostFacts, log: TellSubmitter) -> Answered:
        try:
            return await self._run(key, order, log)
        except QuizmatrixError as error:
            return answered_with(facts, error)
        except OSError as error:
            return answered_with(facts, host_error(f"run {order.what}", error))

    async def _run(self, key: str, order: HostOrder, log: TellSubmitter) -> Answered:
        held = uses.Uses()
        home = self._homes.enter(order.home)
        need = need_of_job(order.job) if isinstance(order, CellOrder) else need_of_build(self._cpus)

        def tell(told: Told) -> None:
            log(order.topic, {"key": key, "told": encoded(told).decode()})

        try:
            if isinstance(order, CellOrder):
                here: HostOrder = await self._localized(order, home, held)
            else:
                here = msgspec.structs.replace(order, cpus=self._cpus)
            await self._admission.enter(need, lambda text: tell(Told(note=text)))
            tell(Told(host=os.uname().nodename))
            try:
                return await self._run_process(key, here, home, tell)
            finally:
                self._admission.leave(need)
        finally:
            held.release()
            with anyio.CancelScope(shield=True):
                await self._homes.leave(order.home)
                await self._tidy()

    async def _tidy(self) -> None:
        """Keep the store to its budget, now and then: all of it is walked."""
        if (now := anyio.current_time()) - self._tidied > _TIDY_PAUSE:
            self._tidied = now
            await in_thread(blobs.keep_to_budget)

    async def _localized(self, order: CellOrder, home: HomeClient, held: uses.Uses) -> CellOrder:
        """The order, with this host's paths of all that has travelled, which is fetched."""
        found: dict[str, str] = {}
        fetches = [*(await self._stores.fetches(order.store)), home.fetch, home.fetch_directly]
        sources = incoming.Sources(fetches, home.tell_has)

        async def fetch(digest: str) -> None:
            async with self._fetches:
                place = await incoming.folder_of(digest, sources, held)
            found[digest] = name_of(place)

        wanted = [*order.travels.values(), *(disk.content for disk in order.disks if disk.content)]
        async with task_group() as group:
            for digest in dict.fromkeys(wanted):
                group.start_soon(fetch, digest)
        job = order.job.moved({name: found[digest] for name, digest in order.travels.items()})
        return msgspec.structs.replace(order, job=job, travels={}, disks=placed(order.disks, found))

    async def _run_process(
        self, key: str, order: HostOrder, home: HomeClient, tell: Callable[[Told], None]
    ) -> Answered:
        with paths.scratch(self._folder, "run") as name:
            folder = Path(name)
            (folder / cellprocess.ORDER).write_bytes(encoded(order))
            try:
                answered = await _listen(self._processes, folder, tell)
                if not answered.is_done:
                    return answered
                packed = folder / "packed"
                cell = folder / cellprocess.CELL
                if isinstance(order, CellOrder):
                    left_out = "" if order.hands_on else handed_disks_of(cell).name
                    await pack_cell(cell, packed, left_out)
                else:
                    await pack_folder(KERNELS.path(answered.kernel), packed)
                upload = await home.send(packed, key)
                return msgspec.structs.replace(answered, upload=upload)
            finally:
                with anyio.CancelScope(shield=True):
                    # The guest may have left anything there.
                    await untrusted.remove(folder / cellprocess.CELL)


async def _listen(processes: Forker, folder: Path, tell: Callable[[Told], None]) -> Answered:
    """Run the order's process, and pass on what it tells; returns its answer."""
    answers: list[Answered] = []

    def take(line: bytes) -> None:
        if line.startswith(b'{"host":'):
            answers.append(decoded(line, Answered))
        else:
            tell(decoded(line, Told))

    status = await processes.run(folder, take)
    if not answers:
        said = ""
        with suppress(FileNotFoundError):  # it died at once
            said = (folder / SAID).read_text(errors="replace")
        raise HostError(f"the cell's process ended with {status}", cause=said.strip().rpartition("\n")[2])
    return answers[0]
