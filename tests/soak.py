"""Boots or restores cells again and again, and counts failures: `make soak`.

Some machines, CPUs and kernels crash one boot in some under emulation. What is written into `arch/`
has to hold here first. More at a time than the host has CPUs shows what a busy host brings about.

    python tests/soak.py cold|warm COUNT AT_A_TIME CELL... [-- COMMAND...]
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
from quizmatrix.model.start import StartKind
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import GuestPlan, Prepared, specify
from quizmatrix.run.cell import run_cell


class Soak:
    """Guests and their outcomes."""

    def __init__(self, at_a_time: int, command: list[str], top: Path) -> None:
        """at_a_time: the number of VMs. top: the folder for the cells' folders."""
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self._room = anyio.CapacityLimiter(at_a_time)
        self._command = command
        self._top = top

    async def guest(
        self, preparer: Preparer, cell: Cell, prepared: Prepared, name: str, start: StartKind | None
    ) -> None:
        """One guest, judged."""
        async with self._room:
            folder = self._top / f"{cell.folder}-{name}"
            folder.mkdir()
            answer = await preparer.accelerator(cell, prepared, None)
            (task,) = in_each([cell], self._command)
            asked = GuestPlan(start=start)
            spec = await specify(task, prepared, answer.accelerator, folder=folder, asked=asked)
            began = time.monotonic()
            result = await run_cell(spec)
        seconds = time.monotonic() - began
        if result.outcome is Outcome.PASSED:
            shutil.rmtree(folder)
        else:
            print(f"{cell.id}: {result.outcome}: {result.detail}: {folder}", flush=True)
        if start is not None:
            self.seconds[cell.id].append(seconds)
            self.outcomes[cell.id][result.outcome] += 1


async def soak(start: StartKind, count: int, at_a_time: int, ids: list[str], command: list[str]) -> int:
    """Start each cell's guest `count` times; 1 where one did not pass."""
    top = Path(tempfile.mkdtemp(prefix="quizmatrix-soak-"))
    soaked = Soak(at_a_time, command, top)
    preparer = Preparer(Policy())
    for cell in cells.cells_on_the_spot(ids, Limits()):
        prepared = await preparer.prepare(cell, lambda said: print(said, flush=True))
        # It leaves the template.
        await soaked.guest(preparer, cell, prepared, "first", None)
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(soaked.guest, preparer, cell, prepared, str(number), start)
    rows = [
        [cell, start, count, found[Outcome.PASSED], f"{statistics.median(soaked.seconds[cell]):.2f} s"]
        for cell, found in soaked.outcomes.items()
    ]
    print(tabulate(rows, headers=["cell", "start", "guests", "passed", "median"]))
    failed = any(found[Outcome.PASSED] != count for found in soaked.outcomes.values())
    if not failed:
        shutil.rmtree(top)
    return int(failed)


def main(words: list[str]) -> int:
    """The exit status for the command line."""
    command = ["true"]
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    start, count, at_a_time, *ids = words
    return anyio.run(soak, StartKind(start), int(count), int(at_a_time), ids, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
