"""Measures the wait before the first sweep, from empty caches: `make bench-first`, one to two hours.

The matrix `endian` in one run by two versions: this one, and the last before ready-made kernels took modules,
whose nine kernels are all built here. Each takes four steps: what a first run has to prepare, the first run,
OpenZFS on top, and the first run with it. The row of a first grid is the first two steps, that of OpenZFS all
but the second.

    python -m tests.bench_first [FOLDER]

FOLDER keeps the caches and the figures: the next call with it measures only what is missing. A version of
which a step was interrupted is begun anew.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from tabulate import tabulate

from quizmatrix.core import paths
from quizmatrix.core.folders import remove_tree
from quizmatrix.core.units import format_seconds
from tests.bench import QUIZMATRIX, row, timed
from tests.openzfs import source_tree

ROOT = Path(__file__).parents[1]

NEW, OLD = VERSIONS = ("this", "before")
# The version before: the last commit without build trees for ready-made kernels.
COMMIT = "826a117"

# The steps, and the words of each after `quizmatrix`.
STEPS = {
    "prepare": ("prepare", "endian", "--quiet"),
    "run": ("run", "endian", "--", "true"),
    "zfs": ("zfs", "build", "endian", "--source", "{tree}"),
    "run-zfs": ("run", "endian", "-p", "zfs", "--", "zpool", "version"),
}
# By row: its steps, and the largest part of the CPU that the new way may need of the old one.
ROWS = {
    "first `run endian`": (("prepare", "run"), 0.5),
    "`zfs build endian` and first `run -p zfs`": (("prepare", "zfs", "run-zfs"), 0.7),
}


class Cost(msgspec.Struct, frozen=True):
    """Seconds that a step took."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        """Both steps together."""
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __str__(self) -> str:
        """`3170 s, wall 28m10s`."""
        return f"{self.cpu:.0f} s, wall {format_seconds(self.wall)}"


class Figures:
    """The steps that were measured, in a file."""

    def __init__(self, folder: Path) -> None:
        """folder: where the file is."""
        self._file = folder / "figures.json"
        text = self._file.read_bytes() if self._file.exists() else b"{}"
        self._found = msgspec.json.decode(text, type=dict[str, Cost])

    def get(self, version: str, step: str) -> Cost | None:
        """What a step cost; None where it was not measured yet."""
        return self._found.get(f"{version} {step}")

    def forget(self, version: str) -> None:
        """Drop the figures of a version: its caches are gone."""
        self._found = {name: cost for name, cost in self._found.items() if name.split()[0] != version}

    def put(self, version: str, step: str, cost: Cost) -> None:
        """Keep what a step cost."""
        self._found[f"{version} {step}"] = cost
        self._file.write_bytes(msgspec.json.format(msgspec.json.encode(self._found)))


class Bench:
    """The caches of the versions, and what their steps cost."""

    def __init__(self, folder: Path, tree: Path) -> None:
        """folder: for the caches, the version before, and the logs. tree: OpenZFS's source.

        Takes the version before from this repository's history, unless the folder has it.
        """
        self._folder = folder
        self._tree = tree
        self._before = folder / COMMIT
        if not self._before.is_dir():
            _check_out(self._before)
        self.figures = Figures(folder)

    def take(self, version: str) -> None:
        """Measure what is missing of a version."""
        if all(self.figures.get(version, step) for step in STEPS):
            return
        # What an interrupted one has left would make its figures too small.
        self.figures.forget(version)
        remove_tree(self._folder / version)
        for step in STEPS:
            cost = self._measure(version, step)
            self.figures.put(version, step, cost)
            print(f"{version}, {step}: CPU {cost}", flush=True)

    def _measure(self, version: str, step: str) -> Cost:
        """Take a step. What it prints goes to a log."""
        names = ("QUIZMATRIX_CACHE_DIR", "QUIZMATRIX_STATE_DIR", "CCACHE_DIR")
        env = {**os.environ, **{name: str(self._folder / version / name.lower()) for name in names}}
        env["PYTHONPATH"] = str(ROOT if version == NEW else self._before)
        argv = [*QUIZMATRIX, *(word.format(tree=self._tree) for word in STEPS[step])]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (self._folder / f"{version}-{step}.log").open("wb") as log:
            run = functools.partial(subprocess.run, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder)
            wall = timed(lambda: run(argv, check=True, env=env))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cost(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    def total(self, version: str, steps: tuple[str, ...]) -> Cost | None:
        """What the steps of a row cost together; None where one is missing."""
        costs = [cost for step in steps if (cost := self.figures.get(version, step)) is not None]
        return sum(costs[1:], costs[0]) if len(costs) == len(steps) else None


def _check_out(place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        archive = ["git", "-C", str(ROOT), "archive", f"--output={scratch}/tar", COMMIT]
        subprocess.run(archive, check=True)
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        subprocess.run(["tar", "-xf", f"{scratch}/tar", "-C", str(unpacked)], check=True)
        unpacked.rename(place)


def row_of(what: str, bench: Bench) -> list[str] | None:
    """A row of the table; None where a step of it was not measured."""
    steps, most = ROWS[what]
    new, old = bench.total(NEW, steps), bench.total(OLD, steps)
    if new is None or old is None:
        return None
    said, ratio = f"CPU of the {what}, from nothing", f"{new.cpu / old.cpu:.2f} times"
    met = new.cpu <= most * old.cpu
    return row(said, str(new), f"before {old}", ratio, f"at most {most} times", met)


def main(words: list[str]) -> int:
    """Measure what is missing; 1 where a target is missed."""
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as scratch:
        folder = Path(words[0] if words else scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, source_tree(Path(scratch) / "source"))
        for version in VERSIONS:
            bench.take(version)
        rows = [line for what in ROWS if (line := row_of(what, bench))]
    print()
    print(tabulate(rows, headers=["what", "quizmatrix", "rival", "difference", "target", ""]))
    return int(any(line[-1] == "MISSED" for line in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
