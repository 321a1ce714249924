"""What a cell needs before it can boot: its kernel, base image and initramfs, each made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, cast

import anyio
import msgspec

from quizmatrix import accel, image, initramfs, process
from quizmatrix.accel import Answer
from quizmatrix.arch import Accelerator, Arch, load_arch
from quizmatrix.cells import Cell
from quizmatrix.errors import QuizmatrixError
from quizmatrix.kernel import source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.build import Order, options_of
from quizmatrix.process import Tell
from quizmatrix.spec import CellSpec, Share

# Kernels fetched and unpacked at a time: more only share the network and the disk.
_FETCHES = 2

T = TypeVar("T")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's artifacts."""

    kernel: Kernel
    initramfs: Path


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How artifacts are had.

    offline: from the cache alone. refresh: the sources are asked anew. thorough: what is in the
    cache is read in full to see that it is what was stored.
    """

    offline: bool = False
    refresh: bool = False
    thorough: bool = False


class Preparer:
    """Prepares the cells of one run; cells that share an artifact wait for one making of it."""

    def __init__(self, policy: Policy) -> None:
        """Nothing is fetched before the first cell asks."""
        self._policy = policy
        self._locks: dict[str, anyio.Lock] = {}
        self._made: dict[str, object] = {}
        self._fetches = anyio.CapacityLimiter(_FETCHES)

    async def prepare(self, cell: Cell, tell: Tell) -> Prepared:
        """The artifacts of `cell`; `tell` hears what is going on.

        Raises HostError where QEMU or a tool is missing, UnpreparedError where an artifact is.
        """
        arch = load_arch(cell.arch)
        qemu = arch.facts.qemu
        process.require_program(qemu.binary, qemu.package)
        base = await self._image(arch, tell)
        kernel = await self._kernel(cell, arch, tell)
        return Prepared(kernel=kernel, initramfs=initramfs.assemble(kernel, base, arch))

    async def accelerator(self, spec: CellSpec, asked: Accelerator | None) -> Answer:
        """The accelerator for the cell `spec`: the one asked for, or what a trial boot shows."""
        if asked is not None:
            return Answer(accelerator=asked, why="asked for with --accel")

        async def find_out() -> Answer:
            return accel.without_trial(spec.arch) or await accel.try_kvm(spec)

        return await self._once(f"accelerator {spec.arch.name}", find_out)

    async def _image(self, arch: Arch, tell: Tell) -> image.Image:
        return await self._once(
            f"image {arch.name}",
            lambda: image.obtain_small(
                arch, offline=self._policy.offline, refresh=self._policy.refresh, tell=tell
            ),
        )

    async def _kernel(self, cell: Cell, arch: Arch, tell: Tell) -> Kernel:
        order = Order(arch=arch, options=options_of(cell), tell=tell)

        async def obtain() -> Kernel:
            async with self._fetches:
                return await source.obtain(
                    cell.kernel_spec,
                    order,
                    offline=self._policy.offline,
                    refresh=self._policy.refresh,
                    thorough=self._policy.thorough,
                )

        return await self._once(f"kernel {cell.kernel_spec} {cell.arch} {order.options}", obtain)

    async def _once(self, name: str, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` gives, or raises: tried once in a run, however many cells want it."""
        async with self._lock(name):
            if name not in self._made:
                try:
                    self._made[name] = await make()
                except QuizmatrixError as error:
                    self._made[name] = error
        made = self._made[name]
        if isinstance(made, QuizmatrixError):
            raise made
        return cast(T, made)

    def _lock(self, name: str) -> anyio.Lock:
        return self._locks.setdefault(name, anyio.Lock())


def make_spec(
    cell: Cell,
    prepared: Prepared,
    *,
    command: list[str],
    layers: list[Path],
    work_tree: str | None,
    folder: Path,
) -> CellSpec:
    """The specification of `cell`, for the slowest case: the accelerator is decided after it."""
    shares = [Share(tag="kernel", path=str(prepared.kernel.layer))]
    shares += [Share(tag=f"user{number}", path=str(layer)) for number, layer in enumerate(layers)]
    return CellSpec(
        cell=cell.id,
        kernel=cell.kernel,
        kernel_key=prepared.kernel.record.key,
        release=prepared.kernel.record.release,
        arch=load_arch(cell.arch),
        variant=cell.variant,
        accelerator=Accelerator.TCG,
        image=str(prepared.kernel.image),
        initramfs=str(prepared.initramfs),
        layers=shares,
        work_tree=work_tree,
        command=command,
        timeout=cell.timeout,
        boot_timeout=cell.boot_timeout,
        memory=cell.memory,
        cpus=cell.cpus,
        folder=str(folder),
    )


def with_accelerator(spec: CellSpec, accelerator: Accelerator) -> CellSpec:
    """`spec` under `accelerator`, its time limits scaled by the architecture's factor."""
    factor = spec.arch.facts.timeout_factor.of(accelerator)
    return msgspec.structs.replace(
        spec,
        accelerator=accelerator,
        timeout=spec.timeout * factor,
        boot_timeout=spec.boot_timeout * factor,
    )
