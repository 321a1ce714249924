"""Prepares what a cell boots from: kernel, base image and initramfs, each made once for all cells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.once import OncePerKey
from quizmatrix.core.process import Tell
from quizmatrix.core.uses import Uses
from quizmatrix.image import initramfs, small
from quizmatrix.image.artifact import Image
from quizmatrix.kernel import buildlayer, source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.order import Order, options_of
from quizmatrix.model import cells, numa, profile
from quizmatrix.model.arch import Accelerator, Arch, load_arch
from quizmatrix.model.cells import SMALL, Cell
from quizmatrix.model.job import CellJob
from quizmatrix.model.options import ConductOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.spec import BuiltFrom
from quizmatrix.model.task import Task, trial_of
from quizmatrix.prepare.specify import GuestPlan, Prepared, job_of, specify
from quizmatrix.prepare.worktree import tree_around
from quizmatrix.run.accelerator import Answer, find_out, without_trial
from quizmatrix.run.cell import run_cell
from quizmatrix.run.cellfolder import artifacts_of
from quizmatrix.run.observer import Observer

if TYPE_CHECKING:
    from quizmatrix.core.jobserver import JobServer
    from quizmatrix.image.debian import DebianImage, Guest

# How many kernels are fetched and unpacked at a time. More would only share the network and the disk.
_FETCHES = 2

# MiB of memory of a guest that installs packages: its file system is in memory.
_SETUP_MEMORY = 4096


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How artifacts are fetched.

    offline: use only the cache. refresh: ask the sources again for the newest versions. thorough: check all
    files in the cache. boots_here: guests run on this host, which needs QEMU for them.
    """

    offline: bool = False
    refresh: bool = False
    thorough: bool = False
    boots_here: bool = True

    @staticmethod
    def asked(conduct: ConductOptions, *, thorough: bool = False, boots_here: bool = True) -> Policy:
        """What the options ask for. The others: see above."""
        return Policy(
            offline=conduct.offline, refresh=conduct.refresh, thorough=thorough, boots_here=boots_here
        )


class Preparer:
    """Prepares the cells of one run. An artifact that several cells share is made once."""

    def __init__(
        self,
        policy: Policy,
        find_out: Callable[[CellJob], Awaitable[Answer]] = find_out,
        elsewhere: Callable[[str, Order], Awaitable[str]] | None = None,
    ) -> None:
        """find_out: finds the accelerator of a guest. elsewhere: see Order."""
        self._policy = policy
        self._uses = Uses()
        self._artifacts = OncePerKey()
        self._answers: dict[str, Answer] = {}
        self._find_out = find_out
        self._elsewhere = elsewhere
        self._tree = tree_around(Path.cwd())
        self._fetches = anyio.CapacityLimiter(_FETCHES)

    @property
    def is_offline(self) -> bool:
        """Whether only the cache is used."""
        return self._policy.offline

    async def prepare(self, cell: Cell, tell: Tell) -> Prepared:
        """Fetch or build the artifacts of `cell`. tell: is called with progress messages.

        Raises HostError where QEMU or a tool is missing, UnpreparedError where an artifact cannot be made.
        """
        arch = load_arch(cell.arch)
        if self._policy.boots_here:
            process.require_program(arch.facts.qemu.binary, arch.facts.qemu.package)
        self._look_ahead(cell, arch)
        installed: dict[str, str] | None = None
        image = await self._small_image(arch, tell)
        kernel = await self.kernel(cell, tell)
        for use in cell.profiles:
            profile.check(
                use,
                kernel=kernel.record.release,
                config=kernel.config,
                has_module=lambda name: buildlayer.has_module(kernel, name, self._tree),
                cell=cell.id,
            )
        suite = cells.debian_suite(cell.image)
        if suite is not None:
            whole = await self._artifacts.get(
                f"image {cell.image} {cell.arch} {cell.include}",
                lambda: self._debian_image(cell, suite, tell),
            )
            image = msgspec.structs.replace(image, disk=whole.disk)
            installed = whole.installed
        build_layers = await buildlayer.obtain(kernel, self._tree, with_runtime=suite is None)
        for layer in build_layers:
            await self._uses.hold(layer)
        numa.check_kernel(cell.id, kernel.record.release, kernel.config, cell.numa)
        for use in cell.profiles:
            profile.check_packages(use, installed)
        return Prepared(
            kernel=kernel,
            build_layers=build_layers,
            image=image,
            initramfs=initramfs.assemble(kernel, image, arch),
            built_from=self._built_from(cell, kernel),
            has_sshd="openssh-server" in (installed or ()),
        )

    def _built_from(self, cell: Cell, kernel: Kernel) -> BuiltFrom | None:
        if all(profile.facts_of(use.name, cell.id).built_from != "openzfs" for use in cell.profiles):
            return None
        found = buildlayer.references_in(kernel.record.key, self._tree)
        of_trees = (BuiltFrom(tree=one.origin, head=one.head) for one in found if one.is_of_tree)
        return next(of_trees, None)

    def _look_ahead(self, cell: Cell, arch: Arch) -> None:
        """Raise the errors that can be found before anything is fetched or built."""
        numa.check_machine(cell.id, arch, cell.numa, cell.memory)
        asked = cells.debian_suite(cell.image)
        image = None if asked is None else self._stored_image(arch, asked, cell.include)[1]
        if asked is None or image is not None:
            for use in cell.profiles:
                profile.check_packages(use, image.installed if image else None)

    async def build_image(self, cell: Cell, suite: str, include: list[str], tell: Tell) -> DebianImage:
        """Build a Debian image for the cell's architecture; if it is foreign, in a guest like `cell`."""
        from quizmatrix.image import debian

        return await debian.build(load_arch(cell.arch), suite, include, self._setup_guest(cell, tell), tell)

    async def kernel(self, cell: Cell, tell: Tell, *, pool: JobServer | None = None) -> Kernel:
        """The kernel of `cell`, fetched or built where the cache lacks it.

        pool: for builds; with it, the kernel gets a build tree, so that modules can be built against it.
        Raises UnpreparedError where the kernel cannot be fetched or built.
        """
        order = Order(
            arch=load_arch(cell.arch),
            options=options_of(cell),
            tell=tell,
            pool=pool,
            fetches=self._fetches,
            needs_tree=pool is not None,
            elsewhere=self._elsewhere if pool is None and not _needs_modules(cell) else None,
        )

        async def obtain() -> Kernel:
            while True:
                kernel = await source.obtain(
                    cell.kernel_spec,
                    order,
                    offline=self._policy.offline,
                    refresh=self._policy.refresh,
                    thorough=self._policy.thorough,
                )
                tree = kernel.build_tree if order.needs_tree else None
                held = [await self._uses.hold(path) for path in (kernel.folder, *(tree.used if tree else []))]
                # If another process removed one of them just now, it is fetched again.
                if all(held):
                    return kernel

        return await self._artifacts.get(
            f"kernel {cell.kernel_spec} {cell.arch} {order.options} {order.needs_tree}", obtain
        )

    async def accelerator(self, cell: Cell, prepared: Prepared, asked: Accelerator | None) -> Answer:
        """The accelerator for the guest of `cell`: `asked` (--accel), or the result of a trial boot."""
        return await self.accelerator_for(job_of(trial_of(cell), prepared, accelerator=asked))

    async def accelerator_for(self, job: CellJob) -> Answer:
        """The accelerator for the guest of `job`: what the user asked for, or the result of a trial boot."""
        if job.machine.accelerator is not None:
            return Answer(accelerator=job.machine.accelerator, why="asked for with --accel")
        arch, kernel = job.machine.arch, job.kernel.key
        async with self._artifacts.lock(f"accelerator {arch}"):
            known = self._answers.get(arch) or self._answers.get(kernel)
            if known is None:
                known = await self._find_out(job)
                # If the trial of one kernel is inconclusive, another kernel gets its own trial.
                self._answers[arch if known.is_known else kernel] = known
            return known

    def likely_accelerator(self, cell: Cell, asked: Accelerator | None) -> Accelerator:
        """What `accelerator` will probably return, without a trial boot; emulation where that is unknown."""
        answer = without_trial(load_arch(cell.arch)) if asked is None else None
        return asked or (answer.accelerator if answer else Accelerator.TCG)

    async def _small_image(self, arch: Arch, tell: Tell) -> Image:
        return await self._artifacts.get(
            f"image {arch.name}",
            lambda: small.obtain(arch, offline=self._policy.offline, refresh=self._policy.refresh, tell=tell),
        )

    async def _debian_image(self, cell: Cell, asked: str, tell: Tell) -> DebianImage:
        from quizmatrix.image import debian

        arch = load_arch(cell.arch)
        suite, image = self._stored_image(arch, asked, cell.include)
        if image is not None and not self._policy.refresh and await self._uses.hold(image.disk.parent):
            return image
        # What the one that it replaces had stays.
        earlier = debian.find(arch, suite)
        include = list(dict.fromkeys([*(earlier.include if earlier else []), *cell.include]))
        built = await self.build_image(cell, suite, include, tell)
        await self._uses.hold(built.disk.parent)
        return built

    def _stored_image(self, arch: Arch, asked: str, include: Sequence[str]) -> tuple[str, DebianImage | None]:
        """The suite of a Debian image, and the image if it is stored and has what it has to have (include).

        Raises UnpreparedError with --offline, HostError without mksquashfs, where it has to be made.
        """
        from quizmatrix.image import debian

        suite = debian.choose_suite(arch, asked or None)
        image = debian.find(arch, suite)
        lacking = debian.lacks(image, include) if image else []
        if image is not None and not lacking and not self._policy.refresh:
            return suite, image
        if self._policy.offline:
            words = ["quizmatrix", "image", "build", "--arch", arch.name]
            words += ["--suite", asked] if asked else []
            words += ["--include", ",".join(include)] if include else []
            without = f"has no {', '.join(lacking)}" if lacking else "is not in the cache"
            raise UnpreparedError(
                f"the Debian image for {arch.name} {without}",
                cause="--offline forbids fetching it",
                next_step=f"Once, with a network: {process.printable(words)}",
            )
        debian.require_tools()
        return suite, image if image is not None and not lacking else None

    def _setup_guest(self, cell: Cell, tell: Tell) -> Guest:
        """A function that runs a script in a guest with the cell's architecture and kernel."""

        async def run_script(layer: Path, script: str, on_output: Callable[[bytes], Awaitable[None]]) -> Path:
            folder = layer.with_name("guest")
            folder.mkdir()
            own = msgspec.structs.replace(
                cell, image=SMALL, include=(), profiles=(), memory=max(cell.memory, _SETUP_MEMORY)
            )
            prepared = await self.prepare(own, tell)
            answer = await self.accelerator(own, prepared, None)
            spec = await specify(
                Task(id=own.id, cell=own, command=[script]),
                prepared,
                answer.accelerator,
                folder=folder,
                asked=GuestPlan(layers=[layer]),
            )
            result = await run_cell(spec, Observer(stdout=on_output))
            if result.outcome not in (Outcome.PASSED, Outcome.SPLAT):
                said = (folder / "stderr").read_text(errors="replace").strip()
                raise UnpreparedError(
                    f"the Debian image could not be configured in a guest: {result.outcome}",
                    cause=said[-400:] or result.detail,
                )
            return artifacts_of(folder)

        return run_script


def _needs_modules(cell: Cell) -> bool:
    """Whether modules are built for the cell's kernel, which is then built here, too: they fit no other."""
    return any(profile.facts_of(use.name, cell.id).modules for use in cell.profiles)
