"""A run's cells on the hosts of a dask cluster: sends the jobs, and takes the results home."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
from distributed import KilledWorker

from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError, host_error
from quizmatrix.core.text import clean_line
from quizmatrix.hosts import builtthere
from quizmatrix.hosts.heard import Heard
from quizmatrix.hosts.lenthost import run_order
from quizmatrix.hosts.messages import Answered, CellOrder, HostOrder, KernelOrder, Told, decoded, encoded
from quizmatrix.hosts.packing import unpack_cell
from quizmatrix.hosts.placing import (
    SHAPES,
    can_take,
    resources_for,
    resources_for_build,
    shape_of,
    warm_host,
)
from quizmatrix.hosts.serving import Uploads
from quizmatrix.hosts.supply import Supply
from quizmatrix.hosts.workers import GONE, scheduler_is_gone, workers_of
from quizmatrix.kernel import source
from quizmatrix.kernel.order import Order
from quizmatrix.model.job import CellJob
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Disk
from quizmatrix.run import reproduce
from quizmatrix.run.observer import Observer
from quizmatrix.run.place import at_home
from quizmatrix.schedule.admission import Need

# How many jobs are sent for each that a host can run at a time.
_AHEAD = 2
# How many hosts are tried where one cannot do its part.
_MOST_HOSTS = 3

# Seconds between two looks at which hosts there are, and after which an order without any is given up.
_LOOK_PAUSE = 3.0
_NO_HOST_LIMIT = 60.0

# Takes what a host has sent home for an order: the answer, the file, and what was heard meanwhile.
Take = Callable[[Answered, Path, Heard], Awaitable[None]]


class _Sent(NamedTuple):
    """An order that was sent. wanted: resources of its host. allowed: the hosts; empty for all."""

    future: Any
    wanted: Mapping[str, float]
    allowed: frozenset[str]


class Cluster:
    """The hosts of one run."""

    def __init__(
        self,
        client: Any,
        supply: Supply,
        uploads: Uploads,
        run: str,
        *,
        is_patient: bool = False,
    ) -> None:
        """client: connected. run: the id of the run. is_patient: hosts may come in hours."""
        self._client = client
        self._supply = supply
        self._uploads = uploads
        self._run = run
        self._heard: dict[str, Callable[[Told], None]] = {}
        self._window = anyio.CapacityLimiter(1)
        self._is_patient = is_patient
        self._number = 0
        self._submitting = anyio.Lock()
        self._sent_there: dict[str, str] = {}
        client.subscribe_topic(self.topic, self._hear)

    @property
    def topic(self) -> str:
        """Under which dask keeps what the workers tell."""
        return f"quizmatrix-{self._run}"

    def _hear(self, event: tuple[float, Any]) -> None:
        said = event[1]
        if isinstance(said, dict) and (hear := self._heard.get(str(said.get("key")))):
            hear(decoded(str(said.get("told")).encode(), Told))

    @asynccontextmanager
    async def room(
        self, _need: Need, _tell: Callable[[str], None], *, is_further: bool = False
    ) -> AsyncIterator[None]:
        """See schedule.places.JobPlace. Each host admits by itself; more jobs than it runs are sent ahead.

        Not all of them at once: those that wait here can go to a host that joins late.
        """
        if is_further:
            yield
            return
        async with self._window:
            yield

    async def keep_window(self) -> None:
        """Send as many jobs ahead as the hosts are for now; returns when it is cancelled."""
        with contextlib.suppress(UnpreparedError):  # the cells find that out themselves
            while True:
                slots = sum(worker["nthreads"] for worker in await workers_of(self._client))
                self._window.total_tokens = max(1, _AHEAD * slots)
                await anyio.sleep(_LOOK_PAUSE)

    async def run(
        self, job: CellJob, folder: Path, disks: Sequence[Disk], observer: Observer, *, hands_on: bool = False
    ) -> tuple[CellSpec, CellResult]:
        """See schedule.places.JobPlace: run a job on one of the hosts; its files come into `folder`.

        Raises UnpreparedError where the host cannot set the job up, HostError where no host could run it.
        """
        order = CellOrder(
            job=job,
            travels=await self._supply.of_job(job, observer.note),
            home=self._supply.home,
            store=self._supply.store,
            topic=self.topic,
            passes_on=observer.stdout is not None,
            disks=await self._supply.of_disks(disks),
            hands_on=hands_on,
        )
        home = partial(at_home, job=job, folder=folder, disks=disks)

        async def specified(spec: CellSpec, why: str) -> None:
            await observer.specified(home(spec), why)

        async def take(_answered: Answered, packed: Path, heard: Heard) -> None:
            for note in await in_thread(partial(unpack_cell, packed, folder, self._uploads.most)):
                observer.note(note)
            await heard.pass_on_rest(folder)

        local = msgspec.structs.replace(observer, specified=specified)
        answered = await self._carried_out(order, local, take)
        if answered.spec is None or answered.result is None:
            raise DamagedError(f"{answered.host.name} has answered something else")
        spec = home(answered.spec)
        _write_reproduce(spec, answered.host.name)
        return spec, msgspec.structs.replace(answered.result, host=answered.host)

    async def build(self, kernel: str, asked: Order) -> str:
        """Have a kernel built by one of the hosts, and store it here: see Order.elsewhere; returns its key.

        Raises UnpreparedError where it cannot be built, HostError where no host could do it.
        """
        order = KernelOrder(
            kernel=kernel,
            arch=asked.arch.name,
            options=asked.options,
            recipe=source.recipe_of(kernel, asked.arch),
            home=self._supply.home,
            topic=self.topic,
        )

        async def take(answered: Answered, packed: Path, _heard: Heard) -> None:
            await builtthere.store(answered.kernel, packed, asked)

        try:
            answered = await self._carried_out(order, Observer(note=asked.tell), take)
        except _NoHostCanError as error:
            raise HostError(error.fact, next_step=error.next_step) from error
        asked.tell(f"built on {answered.host.name}")
        return answered.kernel

    async def _carried_out(self, order: HostOrder, observer: Observer, take: Take) -> Answered:
        """Have an order carried out; where a host cannot do its part, another one is tried."""
        failed: dict[str, Answered] = {}
        while True:
            answered = await self._attempt(order, take, observer, failed)
            if answered is None:
                continue
            if answered.is_done:
                return answered
            failed[answered.worker] = answered
            if not answered.may_work_elsewhere or len(failed) >= _MOST_HOSTS:
                raise _failure(list(failed.values()))
            observer.note(f"{answered.host.name}: {answered.error}: another host is tried")

    async def _attempt(
        self, order: HostOrder, take: Take, observer: Observer, failed: Mapping[str, Answered]
    ) -> Answered | None:
        """Send an order to a host that has not failed yet. take: is called with what it sends home.

        Returns None where the hosts that it could go to have gone: others may be there.
        """
        self._number += 1
        key = f"{self._run.replace('-', '')}x{self._number}"
        heard = Heard(observer)
        self._heard[key] = heard.put
        try:
            with self._uploads.expected(key):
                async with task_group() as group:
                    group.start_soon(heard.pass_on)
                    answered = await self._answer(key, order, failed)
                    heard.close()
                if answered is not None and answered.is_done:
                    packed = self._uploads.path_of(key, answered.upload)
                    if packed is None or not packed.exists():
                        raise DamagedError(f"{answered.host.name} has sent no results")
                    await take(answered, packed, heard)
        finally:
            del self._heard[key]
        return answered

    async def _answer(self, key: str, order: HostOrder, failed: Mapping[str, Answered]) -> Answered | None:
        hosts = [host for host in await workers_of(self._client) if host["address"] not in failed]
        if failed and not hosts:
            raise _failure(list(failed.values()))
        sent = await self._submit(key, order, hosts, only_these=bool(failed))
        answered: Answered | None = None
        try:
            async with task_group() as group:

                async def watch() -> None:
                    await self._until_none_can(order, sent, frozenset(failed))
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                answered = decoded(await sent.future, Answered)
                group.cancel_scope.cancel()
        except KilledWorker as error:
            raise HostError(
                f"{order.what} was lost on {error.allowed_failures + 1} hosts", cause=str(error)
            ) from error
        except GONE as error:
            raise scheduler_is_gone() from error
        finally:
            # Else dask would compute it again once its worker is gone.
            sent.future.release()
            self._sent_there.pop(key, None)
        return answered

    async def _submit(
        self, key: str, order: HostOrder, hosts: list[dict[str, Any]], *, only_these: bool
    ) -> _Sent:
        has = [host["resources"] for host in hosts]
        job = order.job if isinstance(order, CellOrder) else None
        wanted = resources_for_build(has) if job is None else resources_for(job, has)
        allowed = frozenset(host["address"] for host in hosts) if only_these else frozenset()
        try:
            # One after the other, so that each sees where the one before it went.
            async with self._submitting:
                warm = None if job is None else await self._warm_host(job, hosts, wanted)
                if warm is not None:
                    self._sent_there[key] = warm
                    allowed = frozenset({warm})
                future = self._client.submit(
                    run_order,
                    key,
                    encoded(order),
                    key=key,
                    pure=False,
                    resources=wanted,
                    workers=list(allowed) or None,
                )
        except GONE as error:
            raise scheduler_is_gone() from error
        return _Sent(future, wanted, allowed)

    async def _warm_host(
        self, job: CellJob, hosts: list[dict[str, Any]], wanted: Mapping[str, float]
    ) -> str | None:
        """A host that has a template for the job, and room for it now."""
        shape = shape_of(job)
        if not shape or not any(shape in host["metrics"].get(SHAPES, ()) for host in hosts):
            return None
        known = {address: len(keys) for address, keys in (await self._client.scheduler.processing()).items()}
        # The scheduler may not know yet of those that were just sent.
        sent = Counter(self._sent_there.values())
        busy = {address: max(count, sent[address]) for address, count in known.items()}
        return warm_host(shape, hosts, wanted, busy)

    async def _until_none_can(self, order: HostOrder, sent: _Sent, failed: frozenset[str]) -> None:
        """Return once no host that is there may take what was sent, though others are. Dask would wait on.

        Raises UnpreparedError once there has been no host at all for a while.
        """
        since = anyio.current_time()
        while True:
            await anyio.sleep(_LOOK_PAUSE)
            hosts = [host for host in await workers_of(self._client) if host["address"] not in failed]
            if any(
                can_take(host, sent.wanted) and host["address"] in (sent.allowed or {host["address"]})
                for host in hosts
            ):
                since = anyio.current_time()
            elif hosts:
                return
            elif anyio.current_time() - since > _NO_HOST_LIMIT and not self._is_patient:
                raise UnpreparedError(
                    f"no host is left for {order.what}",
                    cause="they have gone, or take no more cells",
                    next_step="`quizmatrix run --resume` goes on once there is one.",
                )


def _write_reproduce(spec: CellSpec, host: str) -> None:
    """Replace the worker's reproduce.sh, which names files of that host."""
    try:
        reproduce.write_command(spec, f"It ran on another host, {clean_line(host)}.")
    except OSError as error:
        raise host_error(f"write to {spec.files.folder}", error) from error


class _NoHostCanError(UnpreparedError):
    """Each host that was tried lacks something."""


def _failure(failed: list[Answered]) -> UnpreparedError:
    """The error of an order that no host could carry out."""
    kind = _NoHostCanError if failed[-1].may_work_elsewhere else UnpreparedError
    return kind("; ".join(f"{one.host.name}: {one.error}" for one in failed), next_step=failed[-1].next_step)
