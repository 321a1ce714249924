"""Measures the wait before the first sweep, from empty caches: `make bench-first`, one to two hours.

Two matrices in one run: `endian`, with Debian's kernels where there are such, and `built`, whose nine
kernels are all built here. Each has to take four steps: what a first run has to prepare, the first run,
OpenZFS on top, and the first run with it. The row of a first grid is the first two steps, that of OpenZFS
all but the second.

What has to be built for both alike, the kernels that Debian does not have and OpenZFS for them, is measured
once, in caches that were empty, and counts for both. Each matrix then goes on from a copy of those caches.

    python -m tests.bench_first [FOLDER]

FOLDER keeps the caches and the figures: the next call with it measures only what is missing. A part (both,
endian, built) of which a step was interrupted is begun anew.
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

NEW, OLD = MATRICES = ("endian", "built")

# What both matrices have built. Its caches are copied for each.
BOTH = "both"
BUILT_IN_BOTH = "5.10-s390x,*-ppc64"

# The steps of a matrix, and the words of each after `quizmatrix`.
STEPS = {
    "prepare": ("prepare", "{matrix}", "--quiet"),
    "run": ("run", "{matrix}", "--", "true"),
    "zfs": ("zfs", "build", "{matrix}", "--source", "{tree}"),
    "run-zfs": ("run", "{matrix}", "-p", "zfs", "--", "zpool", "version"),
}
# Those of them that BOTH takes.
BUILDS = ("prepare", "zfs")
# By row: its steps, and the largest part of the CPU that the new way may need of the old one.
ROWS = {
    "first `run {matrix}`": (("prepare", "run"), 0.5),
    "`zfs build {matrix}` and first `run -p zfs`": (("prepare", "zfs", "run-zfs"), 0.7),
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

    def get(self, part: str, step: str) -> Cost | None:
        """What a step cost; None where it was not measured yet."""
        return self._found.get(f"{part} {step}")

    def forget(self, part: str) -> None:
        """Drop the figures of a part: its caches are gone."""
        self._found = {name: cost for name, cost in self._found.items() if name.split()[0] != part}

    def put(self, part: str, step: str, cost: Cost) -> None:
        """Keep what a step cost."""
        self._found[f"{part} {step}"] = cost
        self._file.write_bytes(msgspec.json.format(msgspec.json.encode(self._found)))


class Bench:
    """The caches of the parts, and what their steps cost.

    The part at work has its caches at one path, `folder/caches`: builds keep paths.
    """

    def __init__(self, folder: Path, tree: Path) -> None:
        """folder: kept by the user, for all of it. tree: OpenZFS's source."""
        self._caches = folder / "caches"
        self._of_both = folder / BOTH
        self._logs = folder
        self._tree = tree
        self.figures = Figures(folder)

    def take(self, part: str) -> None:
        """Measure what is missing of a part."""
        steps = BUILDS if part == BOTH else tuple(STEPS)
        if all(self.figures.get(part, step) for step in steps) and (part != BOTH or self._of_both.is_dir()):
            return
        # What an interrupted part has left would make its figures too small.
        self.figures.forget(part)
        remove_tree(self._caches)
        if part == BOTH:
            remove_tree(self._of_both)
        else:
            subprocess.run(["cp", "-a", "--reflink=auto", self._of_both, self._caches], check=True)
        for step in steps:
            cost = self._measure(part, step)
            self.figures.put(part, step, cost)
            print(f"{part}, {step}: CPU {cost}", flush=True)
        if part == BOTH:
            self._caches.rename(self._of_both)

    def _measure(self, part: str, step: str) -> Cost:
        """Take a step. What it prints goes to a log."""
        names = ("QUIZMATRIX_CACHE_DIR", "QUIZMATRIX_STATE_DIR", "CCACHE_DIR")
        env = {**os.environ, **{name: str(self._caches / name.lower()) for name in names}}
        matrix = NEW if part == BOTH else part
        argv = [*QUIZMATRIX, *(word.format(matrix=matrix, tree=self._tree) for word in STEPS[step])]
        argv += ["--only", BUILT_IN_BOTH] if part == BOTH else []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (self._logs / f"{part}-{step}.log").open("wb") as log:
            run = functools.partial(subprocess.run, stdout=log, stderr=subprocess.STDOUT)
            wall = timed(lambda: run(argv, check=True, env=env))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cost(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    def total(self, matrix: str, steps: tuple[str, ...]) -> Cost | None:
        """What the steps of a row cost together, those of BOTH included; None where one is missing."""
        wanted = [(BOTH, step) for step in steps if step in BUILDS] + [(matrix, step) for step in steps]
        costs = [cost for part, step in wanted if (cost := self.figures.get(part, step)) is not None]
        return sum(costs[1:], costs[0]) if len(costs) == len(wanted) else None


def row_of(what: str, bench: Bench) -> list[str] | None:
    """A row of the table; None where a step of it was not measured."""
    steps, most = ROWS[what]
    new, old = bench.total(NEW, steps), bench.total(OLD, steps)
    if new is None or old is None:
        return None
    said, ratio = f"CPU of the {what.format(matrix=NEW)}, from nothing", f"{new.cpu / old.cpu:.2f} times"
    met = new.cpu <= most * old.cpu
    return row(said, str(new), f"`{OLD}` {old}", ratio, f"at most {most} times", met)


def main(words: list[str]) -> int:
    """Measure what is missing; 1 where a target is missed."""
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as scratch:
        folder = Path(words[0] if words else scratch).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, source_tree(Path(scratch) / "source"))
        for part in (BOTH, *MATRICES):
            bench.take(part)
        rows = [line for what in ROWS if (line := row_of(what, bench))]
    print()
    print(tabulate(rows, headers=["what", "quizmatrix", "rival", "difference", "target", ""]))
    return int(any(line[-1] == "MISSED" for line in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
