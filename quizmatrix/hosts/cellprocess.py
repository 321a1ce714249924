"""Carries out one order in a process of its own, which forkserver forks.

What happens is told on a socket, a line of JSON each (messages.Told), and at last the answer
(messages.Answered). A process of its own dies with the worker, however that ends, and takes its guest with
it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.core import uses
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import HostError, QuizmatrixError, UnpreparedError
from quizmatrix.hosts.disks import made
from quizmatrix.hosts.messages import (
    Answered,
    CellOrder,
    HostOrder,
    KernelOrder,
    Told,
    answered_with,
    decoded_order,
    encoded,
)
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from quizmatrix.model.result import HostFacts
from quizmatrix.model.spec import CellSpec
from quizmatrix.run.job import run_job
from quizmatrix.run.observer import Observer

ORDER, CELL = "order.json", "cell"

# Bytes of each of the command's streams that are told as they come. The rest comes with the results: dask
# keeps what is told.
_TOLD_AT_MOST = 16 << 20

# Seconds between two lines of the console that are told: only the last one is shown.
_CONSOLE_PAUSE = 0.5

TellWorker = Callable[[Told], None]


def main(folder: Path, out: int) -> None:
    """Carry out the order in the file of `folder`, into a folder of it. out: the socket's descriptor."""
    order = decoded_order((folder / ORDER).read_bytes())
    # It was received, which leaves it to programs that are started here, such as QEMU.
    os.set_inheritable(out, False)

    def write(line: bytes) -> None:
        rest = memoryview(line + b"\n")
        while rest:
            rest = rest[os.write(out, rest) :]

    (folder / CELL).mkdir()
    answer = anyio.run(_answer, order, folder / CELL, lambda told: write(encoded(told)))
    if answer is not None:
        write(encoded(answer))


async def _answer(order: HostOrder, folder: Path, tell: TellWorker) -> Answered | None:
    """Carry out the order; None where the worker stopped it."""
    # The worker knows the rest, and need not ask QEMU again.
    facts = HostFacts(name=os.uname().nodename)
    answer = None
    async with task_group() as group:
        group.start_soon(_stop_on_signal, group.cancel_scope)
        try:
            if isinstance(order, KernelOrder):
                answer = Answered(host=facts, kernel=await _build(order, tell))
            else:
                disks = await made(order.disks, folder)
                observer = _observer(order, tell)
                spec, result = await run_job(order.job, folder=folder, disks=disks, observer=observer)
                answer = Answered(host=facts, spec=spec, result=result)
        except QuizmatrixError as error:
            answer = answered_with(facts, error)
        group.cancel_scope.cancel()
    return answer


async def _build(order: KernelOrder, tell: TellWorker) -> str:
    """Build a kernel, unless the cache here has it; returns its key.

    The source is asked which kernel is meant: the submitter does not know, or wants that anew.
    """
    from quizmatrix.kernel import source

    def note(text: str) -> None:
        tell(Told(note=text))

    arch = load_arch(order.arch)
    if not source.is_public(order.kernel):
        raise UnpreparedError(f"{order.kernel} is not built for others")
    if source.recipe_of(order.kernel, arch) != order.recipe:
        raise HostError(f"it would build {order.kernel} in another way", cause="its configurations differ")
    wanted = Order(arch=arch, options=order.options, tell=note, jobs=order.cpus)
    with uses.using_cache(note):
        return (await source.obtain(order.kernel, wanted, refresh=True)).record.key


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


def _observer(order: CellOrder, tell: TellWorker) -> Observer:
    last = 0.0

    async def specified(spec: CellSpec, why: str) -> None:
        tell(Told(specified=spec, why=why))

    def console(line: str) -> None:
        nonlocal last
        if anyio.current_time() - last > _CONSOLE_PAUSE:
            last = anyio.current_time()
            tell(Told(console=line))

    told = {"stdout": 0, "stderr": 0}

    async def pass_on(name: str, data: bytes) -> None:
        if told[name] < _TOLD_AT_MOST:
            at = told[name]
            tell(Told(stdout=data, at=at) if name == "stdout" else Told(stderr=data, at=at))
        told[name] += len(data)

    return Observer(
        specified=specified,
        stage=lambda stage: tell(Told(stage=stage)),
        note=lambda text: tell(Told(note=text)),
        console=console,
        stdout=partial(pass_on, "stdout") if order.passes_on else None,
        stderr=partial(pass_on, "stderr") if order.passes_on else None,
    )
