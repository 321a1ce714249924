"""Measures how long a run ignores its other cells while one leaves half a million files in /shared.

The files are made on the host, where that takes seconds; what they cost afterwards is the same.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from quizmatrix.core.concurrency import task_group
from quizmatrix.model import cells
from quizmatrix.model.matrix import Limits
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.run.cellfolder import artifacts_of
from quizmatrix.runs import directory
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler

CELL = "6.1-x86_64"
FILES = 500_000
# The guest ends when the files are made.
COMMAND = "touch /shared/ready; until [ -e /shared/go ]; do sleep 1; done"
# A thousand files per folder; one in a hundred is a symlink that points outside.
FILL = """
import os, sys
top, files = sys.argv[1], int(sys.argv[2])
for number in range(files):
    folder = f"{top}/{number // 1000}"
    if number % 1000 == 0:
        os.mkdir(folder)
    if number % 100 == 0:
        os.symlink("/etc/passwd", f"{folder}/{number}")
    else:
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY))
"""
# Seconds between two beats.
BEAT = 0.002


async def _measure(folder: Path) -> tuple[float, float]:
    plan = Plan(tasks=in_each(cells.cells_on_the_spot([CELL], Limits()), [COMMAND]))
    run_directory = directory.create(folder, [COMMAND])
    preparer = Preparer(Policy())
    conductor = Scheduler(plan, run_directory, preparer, lambda _event: None)
    shared = artifacts_of(folder / CELL)
    worst, began = 0.0, 0.0

    async def beat() -> None:
        nonlocal worst
        last = time.monotonic()
        while True:
            await anyio.sleep(BEAT)
            now = time.monotonic()
            worst, last = max(worst, now - last - BEAT), now

    async def fill() -> None:
        nonlocal worst, began
        while not (shared / "ready").exists():  # noqa: ASYNC110 - there is no event in a guest
            await anyio.sleep(0.1)
        await anyio.run_process([sys.executable, "-c", FILL, str(shared), str(FILES)])
        worst, began = 0.0, time.monotonic()
        (shared / "go").touch()

    async with task_group() as group:
        group.start_soon(beat)
        group.start_soon(fill)
        (result,) = await conductor.run()
        took = time.monotonic() - began
        group.cancel_scope.cancel()
    assert result.outcome == "passed", result.detail
    return worst, took


def longest_stall() -> tuple[float, float]:
    """Seconds of the longest stall, and from the command's end to the result."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        try:
            return anyio.run(_measure, Path(name) / "run")
        finally:
            subprocess.run(["rm", "-rf", f"{name}/run"], check=True)


if __name__ == "__main__":
    stall, took = longest_stall()
    print(f"{took:.1f} s from the command's end to the result; the longest stall, in s:", file=sys.stderr)
    print(f"{stall:.3f}")
