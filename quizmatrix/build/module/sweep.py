"""Builds modules for many cells, each once per kernel. All builds share one pool of CPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from quizmatrix.build import parts
from quizmatrix.build.module import build
from quizmatrix.build.module.build import ModuleOptions, OtherModules
from quizmatrix.build.module.module import Module, NeedsOtherModuleError, WaitsForModuleError
from quizmatrix.build.parts import Built, Done, PartResult, Parts, TellOf
from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError, UnpreparedError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.cells import Cell
from quizmatrix.prepare import compiling
from quizmatrix.prepare.preparer import Preparer


class BuiltModules(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one cell, one for each module. Where there is no kernel, the first has the error."""

    cell: str
    results: list[PartResult]


class ModuleSweep:
    """Builds modules for many cells."""

    def __init__(
        self, modules: Sequence[Module], options: ModuleOptions, preparer: Preparer, cpus: int, tell: TellOf
    ) -> None:
        """modules: they may use each other's symbols. cpus: compilers at a time, in all builds together."""
        self._modules = modules
        self._options = options
        self._preparer = preparer
        self._pool = JobServer(cpus)
        self._tell = tell
        self._parts = Parts(cpus)

    async def run(self, cells: Sequence[Cell]) -> list[BuiltModules]:
        """Build for every cell; returns the results in the order of the cells."""
        work = compiling.kernels(cells, needs_tree=True, offline=self._preparer.is_offline)
        said = compiling.sentence(work, min(self._pool.cpus, process.usable_cpus()))
        if said is not None:
            self._tell("quizmatrix", said)
        try:
            results = await parts.for_each_cell(cells, self._cell)
        finally:
            self._pool.close()
        return [
            BuiltModules(cell=cell.id, results=result) for cell, result in zip(cells, results, strict=True)
        ]

    async def _cell(self, cell: Cell) -> list[PartResult]:
        def tell(said: str) -> None:
            self._tell(cell.id, said)

        began = time.monotonic()
        try:
            kernel = await self._preparer.kernel(cell, tell, pool=self._pool)
        except QuizmatrixError as error:
            failed = PartResult(done=Done.FAILED, seconds=time.monotonic() - began, error=error)
            return [failed, *[PartResult()] * (len(self._modules) - 1)]
        results = [
            await self._explained(module, result, kernel, cell, tell)
            for module, result in zip(self._modules, await self._build(kernel, tell), strict=True)
        ]
        if any(result.error for result in results):
            return results
        return [await parts.join_layers(kernel, cell, result, tell) for result in results]

    async def _explained(
        self, module: Module, result: PartResult, kernel: Kernel, cell: Cell, tell: Tell
    ) -> PartResult:
        """A result that says what the kernel lacks, if that is why there is no module."""
        if (result.error is None and not result.why) or kernel.build_tree is None:
            return result
        # Only what was not built pays for this import.
        from quizmatrix.build.module import missing

        offline = self._preparer.is_offline
        if isinstance(result.error, UnpreparedError):
            error = await missing.explained(result.error, module, kernel, cell, tell, offline=offline)
            return msgspec.structs.replace(result, error=error)
        way = await missing.way_to_options(result.why, kernel, cell, tell, offline=offline)
        return msgspec.structs.replace(result, why=f"{result.why}. {way}") if way else result

    async def _build(self, kernel: Kernel, tell: Tell) -> list[PartResult]:
        """Build the modules for a kernel; a module that needs another one is built after it."""
        results: dict[str, PartResult] = {}
        built: list[Module] = []
        pending = list(self._modules)
        waiting = list(self._modules)
        while waiting:
            before = len(built)
            for module in waiting:
                result = await self._once(module, kernel, tell, tuple(built), tuple(pending))
                results[module.mark] = result
                if result.built is not None:
                    built.append(module)
                if module in pending and not isinstance(result.error, NeedsOtherModuleError):
                    pending.remove(module)
            waiting = [module for module in waiting if module in pending]
            if len(built) == before:
                # Those that only wait, for each other or for what could not be built, go on without that.
                waiting = [one for one in waiting if isinstance(results[one.mark].error, WaitsForModuleError)]
                pending = []
        return [results[module.mark] for module in self._modules]

    async def _once(
        self,
        module: Module,
        kernel: Kernel,
        tell: Tell,
        built: tuple[Module, ...],
        pending: tuple[Module, ...],
    ) -> PartResult:
        other_modules = OtherModules(
            neighbours=tuple(one for one in self._modules if one != module),
            built=built,
            pending=tuple(one for one in pending if one != module),
        )

        async def make() -> Built:
            return await build.build(
                module, kernel, self._options, self._pool, tell, other_modules=other_modules
            )

        # With more modules built before, or fewer to wait for, it is a new attempt.
        name = f"{kernel.record.key} {module.mark} {len(built)} {len(pending)}"
        return await self._parts.once(name, make)
