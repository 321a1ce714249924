"""Measures the scheduler: `python -m tests.bench_scheduler CELLS` prints CPU seconds and MiB.

Every cell is a guest that ends after a moment: its folder, its events, its results and the run's are written
as always. Two hundred at a time, a third of them in a second attempt, each with a note and a line of its
console now and then.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import zlib
from pathlib import Path

import anyio

from quizmatrix.model.cells import expand
from quizmatrix.model.matrix import Matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.stage import Stage
from quizmatrix.model.task import in_each
from quizmatrix.report.progress import choose
from quizmatrix.run.observer import Observer
from quizmatrix.runs import directory
from quizmatrix.schedule.admission import Admission
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from tests.ready import Ready, ended


async def run_cell(spec: CellSpec, observer: Observer) -> CellResult:
    """A guest that boots and runs its command in a tenth of a second."""
    for stage in (Stage.BOOTING, Stage.JOINING, Stage.RUNNING, Stage.ENDING):
        observer.stage(stage)
        for number in range(5):
            observer.console(f"[    0.{number}] a line of the console")
        await anyio.sleep(0.025)
    folder = Path(spec.files.folder)
    for name in ("stdout", "stderr", "console.log"):
        (folder / name).write_text("something\n")
    is_retried = zlib.crc32(spec.labels.cell.encode()) % 3 == 0 and not list(
        folder.parent.glob(f"{folder.name}.attempt-1")
    )
    return ended(spec, Outcome.LOST if is_retried else Outcome.PASSED)


def measure(count: int) -> dict[str, float]:
    """CPU milliseconds a cell, and MiB of memory at most."""
    matrix = Matrix(kernels=[f"6.{minor}" for minor in range(count // 2)], arches=["s390x", "ppc64"])
    tasks = in_each(expand(matrix, "bench"), ["true"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel").mkdir()
        ready = Ready(folder / "kernel")
        run_directory = directory.create(folder / "run", ["true"], tasks=[task.id for task in tasks])
        shown = choose([task.id for task in tasks], quiet=False, verbose=False)

        async def conduct() -> list[CellResult]:
            admission = Admission(cpus=1 << 20, memory=1 << 30, places=200)
            plan = Plan(tasks=tasks, retries=1)
            return await Scheduler(plan, run_directory, ready, shown.see, admission, run_cell).run()

        before = resource.getrusage(resource.RUSAGE_SELF)
        results = anyio.run(conduct)
        run_directory.finish(results, 0)
        after = resource.getrusage(resource.RUSAGE_SELF)
    if {result.outcome for result in results} != {Outcome.PASSED}:
        raise SystemExit("not every cell passed")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"cpu": 1000 * cpu / count, "memory": _peak()}


def _peak() -> float:
    """The peak memory of this program in MiB (VmHWM of proc(5); ru_maxrss would include its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
