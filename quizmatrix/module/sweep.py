"""A module for many cells at once: built once for each kernel, on one pool of CPUs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from quizmatrix import partbuild
from quizmatrix.cells import Cell
from quizmatrix.errors import QuizmatrixError
from quizmatrix.jobserver import JobServer
from quizmatrix.kernel import external
from quizmatrix.module import build
from quizmatrix.module.build import Module, Options
from quizmatrix.partbuild import Built, Done, PartResult, Parts, TellOf
from quizmatrix.prepare import Preparer


class CellBuild(msgspec.Struct, frozen=True, kw_only=True):
    """One cell's. What came of its kernel's module, or why there is no kernel."""

    cell: str
    result: PartResult


class Sweep:
    """Builds one module for cells."""

    def __init__(self, module: Module, options: Options, preparer: Preparer, cpus: int, tell: TellOf) -> None:
        """cpus: processes that compile at a time, over all builds."""
        self._module = module
        self._options = options
        self._preparer = preparer
        self._pool = JobServer(cpus)
        self._tell = tell
        self._parts = Parts(cpus)

    async def run(self, cells: Sequence[Cell]) -> list[CellBuild]:
        """Build for every cell; the results in their order."""
        try:
            results = await partbuild.of_each(cells, self._cell)
        finally:
            self._pool.close()
        return [CellBuild(cell=cell.id, result=result) for cell, result in zip(cells, results, strict=True)]

    async def _cell(self, cell: Cell) -> PartResult:
        def tell(said: str) -> None:
            self._tell(cell.id, said)

        began = time.monotonic()
        try:
            external.check_source(cell.kernel_spec)
            kernel = await self._preparer.kernel(cell, tell, pool=self._pool)
        except QuizmatrixError as error:
            return PartResult(done=Done.FAILED, seconds=time.monotonic() - began, error=error)

        async def make() -> Built:
            return await build.build(self._module, kernel, self._options, self._pool, tell)

        result = await self._parts.once(kernel.record.key, make)
        return result if result.error else await partbuild.joined(kernel, cell, result)
