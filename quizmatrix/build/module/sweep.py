"""Builds modules for many cells, each once per kernel. All builds share one pool of CPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from quizmatrix.build import parts
from quizmatrix.build.module import build
from quizmatrix.build.module.build import Module, ModuleOptions, OtherModules, UndefinedSymbolError
from quizmatrix.build.parts import Built, Done, PartResult, Parts, TellOf
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.kernel import external
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.cells import Cell
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
            external.check_source(cell.kernel_spec)
            kernel = await self._preparer.kernel(cell, tell, pool=self._pool)
        except QuizmatrixError as error:
            failed = PartResult(done=Done.FAILED, seconds=time.monotonic() - began, error=error)
            return [failed, *[PartResult()] * (len(self._modules) - 1)]
        results = await self._build(kernel, tell)
        if any(result.error for result in results):
            return results
        return [await parts.join_layers(kernel, cell, result) for result in results]

    async def _build(self, kernel: Kernel, tell: Tell) -> list[PartResult]:
        """Build the modules for a kernel; a module that needs symbols of another one is built after it."""
        results: dict[str, PartResult] = {}
        built: list[Module] = []
        waiting = list(self._modules)
        while waiting:
            before = len(built)
            for module in waiting:
                result = await self._once(module, kernel, tell, tuple(built))
                results[module.mark] = result
                if result.error is None:
                    built.append(module)
            if len(built) == before:
                break
            waiting = [
                module for module in waiting if isinstance(results[module.mark].error, UndefinedSymbolError)
            ]
        return [results[module.mark] for module in self._modules]

    async def _once(
        self, module: Module, kernel: Kernel, tell: Tell, built: tuple[Module, ...]
    ) -> PartResult:
        other_modules = OtherModules(
            neighbours=tuple(one for one in self._modules if one != module), built=built
        )

        async def make() -> Built:
            return await build.build(
                module, kernel, self._options, self._pool, tell, other_modules=other_modules
            )

        # The name contains the number of modules built before, since with more of them it is a new attempt.
        return await self._parts.once(f"{kernel.record.key} {module.mark} {len(built)}", make)
