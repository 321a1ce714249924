"""Builds OpenZFS for many cells, each part once. All builds share one pool of CPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from quizmatrix.build import parts
from quizmatrix.build.parts import Built, Done, PartResult, Parts, TellOf
from quizmatrix.build.zfs import build, due, sysroot
from quizmatrix.build.zfs.build import INSTALL, STEPS
from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.part import ZfsPart, modules_part, userland_part
from quizmatrix.build.zfs.tree import ZfsTree, make_ready
from quizmatrix.build.zfs.unchanged import Snapshot
from quizmatrix.core import process
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.arch import Arch, load_arch
from quizmatrix.model.cells import Cell, debian_suite
from quizmatrix.prepare import compiling
from quizmatrix.prepare.preparer import Preparer

# The name of OpenZFS's reference among those of a kernel.
NAME = "zfs"


class BuiltZfs(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one cell."""

    cell: str
    kernel: PartResult = PartResult()
    userland: PartResult = PartResult()
    modules: PartResult = PartResult()

    @property
    def error(self) -> QuizmatrixError | None:
        """Why the cell has no OpenZFS, or not this one: the first error of its parts."""
        return self.kernel.error or self.modules.error or self.userland.error


class ZfsSweep:
    """Builds one OpenZFS tree for many cells."""

    def __init__(
        self, tree: ZfsTree, options: ZfsOptions, preparer: Preparer, cpus: int, tell: TellOf
    ) -> None:
        """cpus: the number of compilers at a time, in all builds together."""
        self._tree = tree
        self._options = options
        self._preparer = preparer
        self._pool = JobServer(cpus)
        self._tell = tell
        self._parts = Parts(cpus)
        self._before: Snapshot | None = None

    async def run(self, cells: Sequence[Cell], steps: Sequence[str] = STEPS) -> list[BuiltZfs]:
        """Do `steps` for every cell; returns the results in the order of the cells.

        Raises the errors of tree.make_ready.
        """
        try:
            await make_ready(self._tree, lambda said: self._tell(self._tree.path.name, said))
            self._before = Snapshot(self._tree)
            if tuple(steps) == STEPS:
                self._say_what_is_due(cells)
            return await parts.for_each_cell(cells, lambda cell: self._cell(cell, steps))
        finally:
            self._pool.close()

    def _say_what_is_due(self, cells: Sequence[Cell]) -> None:
        cells = [cell for cell in cells if build.is_known(self._tree, cell.kernel, self._options)]
        found = [
            *compiling.kernels(cells, needs_tree=True, offline=self._preparer.is_offline),
            *due.work_of(self._tree, self._options, cells),
        ]
        said = compiling.sentence(found, min(self._pool.cpus, process.usable_cpus()))
        if said is not None:
            self._tell("quizmatrix", said)

    async def _cell(self, cell: Cell, steps: Sequence[str]) -> BuiltZfs:
        arch = load_arch(cell.arch)
        began = time.monotonic()
        try:
            # If the name contains the version, it is checked before the kernel is built; else below.
            build.check_kernel(self._tree, cell.kernel, self._options)
            sysroot.require_tools(arch)
            kernel = await self._preparer.kernel(
                cell, lambda said: self._tell(cell.id, said), pool=self._pool
            )
            build.check_kernel(self._tree, kernel.record.version, self._options)
            if self._options.coverage and not kernel.counts_lines:
                self._tell(cell.id, "no lines are counted: its kernel has no gcov, as +gcov_modules has")
            made = await self._sysroot(arch, cell)
            wanted = [
                userland_part(self._tree, arch, made, self._options),
                modules_part(self._tree, arch, kernel, made, self._options),
            ]
        except QuizmatrixError as error:
            failed = PartResult(done=Done.FAILED, seconds=time.monotonic() - began, error=error)
            return BuiltZfs(cell=cell.id, kernel=failed)
        results: dict[str, PartResult] = {}

        async def one(part: ZfsPart) -> None:
            results[part.name] = await self._part(part, steps)

        async with task_group() as group:
            for part in wanted:
                group.start_soon(one, part)
        userland, modules = (results[part.name] for part in wanted)
        if INSTALL in steps and self._before is not None and (change := self._before.change()) is not None:
            # Programs of one branch and modules of another, say.
            modules = PartResult(done=Done.FAILED, seconds=modules.seconds, error=modules.error or change)
        done = BuiltZfs(cell=cell.id, userland=userland, modules=modules)
        if INSTALL in steps and done.error is None:
            self._refer(kernel, userland, modules)
            joined = await parts.join_layers(
                kernel, cell, modules, lambda said: self._tell(cell.id, said), self._tree.path
            )
            return BuiltZfs(cell=cell.id, userland=userland, modules=joined)
        return done

    def _refer(self, kernel: Kernel, userland: PartResult, modules: PartResult) -> None:
        """Add OpenZFS to the guests of the kernel."""
        if userland.built is None or modules.built is None:
            return
        buildlayer.write_reference(
            kernel.record.key,
            buildlayer.LayerReference(
                name=NAME,
                origin=str(self._tree.path),
                head=self._before.head if self._before else "",
                layers=[str(userland.built.layer), str(modules.built.layer)],
                runtime=[str(userland.built.runtime)] if userland.built.runtime else [],
            ),
        )

    async def _sysroot(self, arch: Arch, cell: Cell) -> sysroot.Sysroot:
        suite = debian_suite(cell.image) or None
        async with self._parts.lock(f"sysroot {arch.name}"):
            return await sysroot.obtain(
                arch,
                suite,
                self._pool,
                lambda said: self._tell(cell.id, said),
                is_offline=self._preparer.is_offline,
            )

    async def _part(self, part: ZfsPart, steps: Sequence[str]) -> PartResult:
        """Build a part, unless that was done or is going on for another cell."""

        async def make() -> Built | None:
            return await build.build(part, self._pool, lambda said: self._tell(part.name, said), steps)

        return await self._parts.once(part.name, make)
