"""Boots cells again and again, and counts failures: `make soak`.

Some machines, CPUs and kernels crash one boot in some under emulation. What is written into `arch/`
has to hold here first: `python tests/soak.py COUNT AT_A_TIME CELL...`; more at a time than the host
has CPUs shows what a busy host brings about.
"""

from __future__ import annotations

import collections
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
from tabulate import tabulate

from quizmatrix.model import cells
from quizmatrix.model.cells import Cell
from quizmatrix.model.matrix import Limits
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared, specify
from quizmatrix.run.cell import run_cell


class Soak:
    """Boots and their outcomes."""

    def __init__(self, at_a_time: int, top: Path) -> None:
        """at_a_time: the number of VMs. top: the folder for the cells' folders."""
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self._room = anyio.CapacityLimiter(at_a_time)
        self._top = top

    async def boot(self, preparer: Preparer, cell: Cell, prepared: Prepared, number: int) -> None:
        """One boot, judged."""
        async with self._room:
            folder = self._top / f"{cell.folder}-{number}"
            folder.mkdir()
            answer = await preparer.accelerator(cell, prepared, None)
            (task,) = in_each([cell], ["true"])
            spec = await specify(task, prepared, answer.accelerator, folder=folder)
            began = time.monotonic()
            result = await run_cell(spec)
        self.seconds[cell.id].append(time.monotonic() - began)
        self.outcomes[cell.id][result.outcome] += 1
        if result.outcome is not Outcome.PASSED:
            print(f"{cell.id}: {result.outcome}: {result.detail}: {folder}", flush=True)


async def soak(count: int, at_a_time: int, ids: list[str]) -> int:
    """Boot each cell `count` times; 1 where one did not pass."""
    top = Path(tempfile.mkdtemp(prefix="quizmatrix-soak-"))
    soaked = Soak(at_a_time, top)
    preparer = Preparer(Policy())
    for cell in cells.cells_on_the_spot(ids, Limits()):
        prepared = await preparer.prepare(cell, lambda said: print(said, flush=True))
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(soaked.boot, preparer, cell, prepared, number)
    rows = [
        [cell, count, found[Outcome.PASSED], f"{statistics.median(soaked.seconds[cell]):.2f} s"]
        for cell, found in soaked.outcomes.items()
    ]
    print(tabulate(rows, headers=["cell", "boots", "passed", "median"]))
    failed = any(row[1] != row[2] for row in rows)
    if not failed:
        shutil.rmtree(top)
    return int(failed)


if __name__ == "__main__":
    sys.exit(anyio.run(soak, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
