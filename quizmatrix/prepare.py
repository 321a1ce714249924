"""What a cell needs before it can boot: its kernel, base image and initramfs, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from quizmatrix import accel, image, initramfs, process
from quizmatrix.accel import Answer
from quizmatrix.arch import Accelerator, Arch, load_arch
from quizmatrix.cells import Cell
from quizmatrix.errors import UnpreparedError
from quizmatrix.kernel import source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.spec import CellSpec, Share

# Kernels fetched and unpacked at a time: more only share the network and the disk.
_FETCHES = 2

Tell = Callable[[str], None]


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
        self._kernels: dict[tuple[str, str], Kernel] = {}
        self._images: dict[str, image.Image] = {}
        self._answers: dict[str, Answer] = {}
        self._fetches = anyio.CapacityLimiter(_FETCHES)

    async def prepare(self, cell: Cell, tell: Tell) -> Prepared:
        """The artifacts of `cell`; `tell` hears what is going on.

        Raises HostError where QEMU or a tool is missing, UnpreparedError where an artifact is.
        """
        arch = load_arch(cell.arch)
        qemu = arch.facts.qemu
        process.require_program(qemu.binary, qemu.package)
        if cell.variant is not None:
            raise UnpreparedError(
                f"the variant `{cell.variant}` needs a kernel built for it",
                cause="the source `debian` has its kernels ready-made",
            )
        base = await self._image(arch, tell)
        kernel = await self._kernel(cell, arch, tell)
        return Prepared(kernel=kernel, initramfs=initramfs.assemble(kernel, base, arch))

    async def accelerator(self, spec: CellSpec, asked: Accelerator | None) -> Answer:
        """The accelerator for the cell `spec`: the one asked for, or what a trial boot shows."""
        if asked is not None:
            return Answer(accelerator=asked, why="asked for with --accel")
        async with self._lock(f"accelerator {spec.arch.name}"):
            if spec.arch.name not in self._answers:
                answer = accel.without_trial(spec.arch) or await accel.try_kvm(spec)
                self._answers[spec.arch.name] = answer
        return self._answers[spec.arch.name]

    async def _image(self, arch: Arch, tell: Tell) -> image.Image:
        async with self._lock(f"image {arch.name}"):
            if arch.name not in self._images:
                self._images[arch.name] = await image.obtain_small(
                    arch, offline=self._policy.offline, refresh=self._policy.refresh, tell=tell
                )
        return self._images[arch.name]

    async def _kernel(self, cell: Cell, arch: Arch, tell: Tell) -> Kernel:
        wanted = (cell.kernel, cell.arch)
        async with self._lock(f"kernel {wanted}"):
            if wanted not in self._kernels:
                async with self._fetches:
                    self._kernels[wanted] = await source.obtain(
                        cell.kernel,
                        arch,
                        offline=self._policy.offline,
                        refresh=self._policy.refresh,
                        thorough=self._policy.thorough,
                        tell=tell,
                    )
        return self._kernels[wanted]

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
