"""`quizmatrix prepare`: fetches and builds what the cells need, before a run."""

from __future__ import annotations

import sys

import anyio

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model.cells import Cell
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.prepare.preparer import Policy, Preparer


def prepare_cells(cells: list[Cell], policy: Policy, *, quiet: bool) -> int:
    """Fetch, build and check what the cells need, and print progress.

    Returns exit status 125 where a cell could not be prepared.
    """
    preparer = Preparer(policy)
    failed: list[str] = []

    async def prepare_one(cell: Cell) -> None:
        def tell(text: str) -> None:
            if not quiet:
                print(f"{cell.id}: {text}", flush=True)

        try:
            prepared = await preparer.prepare(cell, tell)
        except QuizmatrixError as error:
            failed.append(cell.id)
            print(f"{cell.id}: {error.render()}", file=sys.stderr, flush=True)
        else:
            tell(f"ready: {prepared.kernel.record.release}")

    async def prepare_all() -> None:
        async with task_group() as group:
            for cell in cells:
                group.start_soon(prepare_one, cell)

    anyio.run(prepare_all)
    if failed:
        print(f"quizmatrix: {len(failed)} of {len(cells)} cells are not prepared", file=sys.stderr)
    return EXIT_NO_VERDICT if failed else EXIT_OK
