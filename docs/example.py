"""Runs a command in every cell of a matrix: python example.py MATRIX COMMAND [ARG]..."""

import sys
import tempfile
from pathlib import Path

import anyio

from quizmatrix import api


async def run_in(cell: api.Cell, command: list[str], preparer: api.Preparer) -> None:
    """Run `command` in one cell, and print how it ended."""
    prepared = await preparer.prepare(cell, print)
    answer = await preparer.accelerator(cell, prepared, None)
    task = api.Task(id=cell.id, cell=cell, command=command)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = await api.specify(task, prepared, answer.accelerator, folder=folder)
        result = await api.run_cell(spec)
        print(f"{cell.id}: {result.outcome}")
        for line in (folder / "stdout").read_text(errors="replace").splitlines():
            print(f"    {line}")


async def main(matrix: str, command: list[str]) -> None:
    """One cell after the other."""
    preparer = api.Preparer(api.Policy())
    for cell in api.expand(api.load_matrix(api.find_matrix(matrix)), matrix):
        await run_in(cell, command, preparer)


try:
    anyio.run(main, sys.argv[1], sys.argv[2:])
except api.QuizmatrixError as error:
    sys.exit(error.render())
