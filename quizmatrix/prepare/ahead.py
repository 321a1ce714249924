"""`quizmatrix prepare`: fetches and builds what the cells need, before a run."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from quizmatrix.core import paths, process
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError, host_error
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.model.task import trial_of
from quizmatrix.prepare import compiling
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared, specify
from quizmatrix.run.ahead import make_template
from quizmatrix.run.template import SCRATCH, TEMPLATES


def prepare_cells(cells: list[Cell], policy: Policy, *, quiet: bool) -> int:
    """Fetch, build and check what the cells need, and print progress.

    Returns exit status 125 where a cell could not be prepared.
    """
    work = compiling.sentence(compiling.for_guests(cells, offline=policy.offline), process.usable_cpus())
    if work is not None and not quiet:
        print(f"quizmatrix: {work}", flush=True)
    preparer = Preparer(policy)
    failed: list[str] = []
    boots = anyio.CapacityLimiter(process.usable_cpus())

    async def prepare_one(cell: Cell) -> None:
        def tell(text: str) -> None:
            if not quiet:
                print(f"{cell.id}: {text}", flush=True)

        try:
            prepared = await preparer.prepare(cell, tell)
            # Each guest takes a CPU while it boots.
            async with boots:
                cold = await _make_template(preparer, cell, prepared)
        except (QuizmatrixError, OSError) as error:
            failed.append(cell.id)
            said = host_error("make its template", error) if isinstance(error, OSError) else error
            print(f"{cell.id}: {said.render()}", file=sys.stderr, flush=True)
        else:
            tell(f"ready: {prepared.kernel.record.release}{f'; cold: {cold}' if cold else ''}")

    async def prepare_all() -> None:
        async with task_group() as group:
            for cell in cells:
                group.start_soon(prepare_one, cell)

    anyio.run(prepare_all)
    if failed:
        print(f"quizmatrix: {len(failed)} of {len(cells)} cells are not prepared", file=sys.stderr)
    return EXIT_NO_VERDICT if failed else EXIT_OK


async def _make_template(preparer: Preparer, cell: Cell, prepared: Prepared) -> str:
    """Make the template of a cell's guest. Returns why it will have none; empty if it has one."""
    if process.find_program(load_arch(cell.arch).facts.qemu.binary) is None:
        return "its QEMU is not installed"
    answer = await preparer.accelerator(cell, prepared, None)
    with paths.scratch(TEMPLATES.root, SCRATCH) as name:
        folder = Path(name)
        spec = await specify(trial_of(cell), prepared, answer.accelerator, folder=folder)
        return await make_template(spec)
