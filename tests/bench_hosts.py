"""Measures runs on other hosts, against local ones: `make bench-hosts`. Some ten minutes on two idle cores.

Prints each figure and whether the target is met; exits with 1 where one is not.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from distributed import Client, Scheduler, Worker
from tabulate import tabulate

from quizmatrix.hosts import engine, placing
from quizmatrix.hosts.blobs import FOLDER
from quizmatrix.hosts.forker import Forker
from quizmatrix.hosts.lenthost import LentHost, run_order
from quizmatrix.hosts.messages import Answered, CellOrder, HostOrder, decoded, encoded
from quizmatrix.model.result import HostFacts
from quizmatrix.schedule.admission import Admission
from tests.bench import QUIZMATRIX, row
from tests.made_job import job
from tests.vm.farm import Farm

ROUNDS = 3
CELL = "6.1-x86_64"
STAND_IN = Path(__file__).with_name("stand_in_worker.py")

JOBS, HOSTS = 1000, 8
MOST_CPU, MOST_MEMORY = 15.0, 100.0
CELLS, MOST_RATIO = 24, 1.1
MOST_DELAY = 1.0
FILE_SIZE, MOST_BYTES = 3 << 20, 2 << 20
# In one process.
MANY, WORKERS_WANTED = 10_000, 500


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A run: seconds; of CPU; MiB; seconds until a guest started."""

    wall: float
    cpu: float
    memory: float
    first: float


def run(words: str, *options: str, current: Path | None = None) -> Ran:
    """`quizmatrix run` with this command, in an empty folder or the one given. All its cells have to pass."""
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "run"
        argv = [*QUIZMATRIX, "run", "--only", CELL, "--offline", "--output", str(output), *options]
        started, at = time.monotonic(), time.time()
        process = subprocess.Popen(
            [*argv, "--", words], cwd=current or name, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        assert process.returncode == 0, f"{argv}: {process.returncode}"
        return Ran(
            wall=wall,
            cpu=used.ru_utime + used.ru_stime,
            memory=used.ru_maxrss / 1024,
            first=_first_start(output) - at,
        )


def _first_start(output: Path) -> float:
    for line in (output / "events.jsonl").read_bytes().splitlines():
        event = json.loads(line)
        if event.get("stage") == "booting":
            return datetime.fromisoformat(event["time"]).timestamp()
    raise AssertionError("no guest started")


@contextmanager
def farm(*cpus: int, worker: Path | None = None, one_cache: bool = False) -> Iterator[Farm]:
    """Hosts with so many CPUs each."""
    made = Farm(
        Path(tempfile.mkdtemp(prefix="quizmatrix-farm-")), cpus=cpus, worker=worker, one_cache=one_cache
    )
    try:
        yield made
    finally:
        made.stop()


def many_jobs() -> list[list[str]]:
    """The submitter's own cost, over hosts whose guests are stand-ins."""
    with farm(*[1] * HOSTS, worker=STAND_IN, one_cache=True) as hosts:
        # The artifacts travel.
        few = run("true", *hosts.options, "--shard", "8", "--cpus", "1", "--memory", "128M")
        many = run("true", *hosts.options, "--shard", str(JOBS), "--cpus", "1", "--memory", "128M")
    cpu = 1000 * (many.cpu - few.cpu) / (JOBS - 8)
    what = f"{JOBS} jobs over {HOSTS} workers"
    alone, most = f"8 jobs: {few.cpu:.1f} s, {few.memory:.0f} MiB", f"at most {MOST_MEMORY:.0f} MiB"
    return [
        row(
            f"{what}: the submitter's CPU a cell",
            f"{cpu:.1f} ms",
            alone,
            "-",
            f"at most {MOST_CPU} ms",
            cpu <= MOST_CPU,
        ),
        row(f"{what}: its memory", f"{many.memory:.0f} MiB", alone, "-", most, many.memory <= MOST_MEMORY),
        row(f"{what}: wall time", f"{many.wall:.0f} s", "-", "-", "-", True),
    ]


def real_cells() -> list[list[str]]:
    """Real guests on two workers of one CPU, against a local run with two; and what the way there takes."""
    words = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    many = ("--shard", str(CELLS), "--cpus", "1")
    with farm(1, 1) as hosts:
        # The artifacts travel, and all templates are made.
        for on in ((), hosts.options):
            run("true", *on, "--shard", "4")
        walls: dict[str, list[float]] = {"here": [], "there": []}
        firsts: dict[str, list[float]] = {"here": [], "there": []}
        for _ in range(ROUNDS):
            for where, on in (("here", ()), ("there", hosts.options)):
                walls[where].append(run(words, *on, *many).wall)
                firsts[where].append(run("true", *on).first)
    here, there = (statistics.median(walls[where]) for where in ("here", "there"))
    ours, theirs = (statistics.median(firsts[where]) for where in ("here", "there"))
    ratio, delay = there / here, theirs - ours
    return [
        row(
            f"{CELLS} cells on two workers of one CPU",
            f"{there:.1f} s",
            f"here {here:.1f} s",
            f"{ratio:.2f} times",
            f"at most {MOST_RATIO} times",
            ratio <= MOST_RATIO,
        ),
        row(
            "`run --on` to the first guest's start",
            f"{theirs:.2f} s",
            f"here {ours:.2f} s",
            f"+{delay:.2f} s",
            f"at most +{MOST_DELAY} s",
            delay <= MOST_DELAY,
        ),
    ]


def second_sweep(tree: Path) -> list[list[str]]:
    """What is sent again once a file of the work tree has changed."""
    with farm(1) as hosts, tempfile.TemporaryDirectory() as name:
        here = Path(name) / "tree"
        shutil.copytree(tree, here, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv"))
        size = sum(path.lstat().st_size for path in here.rglob("*") if path.is_file())
        run("test -e changed || :", *hosts.options, current=here)
        before = arrived(hosts)
        (here / "changed").write_bytes(os.urandom(FILE_SIZE))
        run("test -e changed", *hosts.options, current=here)
        sent = arrived(hosts) - before
    beside = sent - FILE_SIZE
    what = f"sent after a file of {FILE_SIZE >> 20} MiB changed in a tree of {size >> 20} MiB"
    return [row(what, f"{sent / 1e6:.2f} MB", "-", "-", "at most 2 MB plus the file", beside <= MOST_BYTES)]


def arrived(hosts: Farm) -> int:
    """The bytes of all that has come to the hosts."""
    return sum(
        path.stat().st_size for host in hosts.hosts for path in (host.cache / FOLDER / "blobs").glob("*")
    )


class StandIn(LentHost):
    """A host in this process, whose cells end at once."""

    async def _run(self, _key: str, order: HostOrder, _log: object) -> Answered:
        await asyncio.sleep(0.1)
        return Answered(host=HostFacts(name="stand-in"), error=f"{order.what} is over")


async def in_process(workers: int, count: int) -> dict[str, float]:
    """So many cells over so many workers, with dask's own scheduler, all in one process."""
    order = encoded(CellOrder(job=job(), travels={}, home="http://nowhere", topic="t"))
    make: Any = Scheduler
    started: list[Any] = []
    async with make(protocol="inproc", dashboard=False, dashboard_address=":0", port=0) as scheduler:
        before = memory()
        resources: dict[str, float] = {placing.CPUS: 1, placing.MEMORY: 4096, placing.resource(): 1 << 30}
        for _ in range(workers):
            worker: Any = Worker(
                scheduler.address, nthreads=1, resources=resources, memory_limit=0, dashboard=False
            )
            started.append(await worker)
            await worker.plugin_add(
                plugin=StandIn(1, Admission(cpus=1, memory=4096, places=1), Path("/"), Forker(), None)
            )
        each = (memory() - before) / workers
        connect: Any = Client
        async with connect(scheduler.address, asynchronous=True, set_as_default=False) as client:
            used, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            answers = await play(client, order, count, window=2 * workers)
            wall = time.monotonic() - began
            now = resource.getrusage(resource.RUSAGE_SELF)
        assert answers == count
        cpu = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
        for one in started:
            await one.close()
    return {"wall": wall, "cpu": cpu, "memory": each}


async def play(client: Any, order: bytes, count: int, window: int) -> int:
    """Send the cells, a window of them ahead; returns how many were answered."""
    room, answered = asyncio.Semaphore(window), 0

    async def one(number: int) -> None:
        nonlocal answered
        async with room:
            key = f"cell{number}"
            wanted = {placing.resource(): 1, placing.CPUS: 1, placing.MEMORY: 512}
            future = client.submit(run_order, key, order, key=key, pure=False, resources=wanted)
            answer = decoded(await future, Answered)
            answered += bool(answer.error)
            future.release()

    await asyncio.gather(*map(one, range(count)))
    return answered


def memory() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def many_workers() -> list[list[str]]:
    """Where dask's scheduler ends."""
    engine.configure(logging.CRITICAL)
    rows = []
    for workers in (WORKERS_WANTED // 10, WORKERS_WANTED):
        found = asyncio.run(in_process(workers, MANY))
        each, busy = 1000 * found["cpu"] / MANY, found["cpu"] / found["wall"]
        said = f"{found['wall']:.0f} s, {each:.1f} ms of CPU a cell, {found['memory']:.1f} MiB a worker"
        limit = f"one thread, {busy:.0%} busy: {MANY / found['wall']:.0f} cells a second"
        rows.append(row(f"{MANY} cells on {workers} workers in one process", said, limit, "-", "holds", True))
    return rows


def main() -> int:
    """Measure everything, or the parts that are named; the first argument may be a work tree."""
    tree = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as runs:
        os.environ["QUIZMATRIX_STATE_DIR"] = runs
        parts = (many_jobs, real_cells, lambda: second_sweep(tree), many_workers)
        rows = list(itertools.chain.from_iterable(part() for part in parts))
    print(tabulate(rows, ["what", "ours", "beside", "ratio", "target", ""], disable_numparse=True))
    return 1 if any(one[-1] == "MISSED" for one in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
