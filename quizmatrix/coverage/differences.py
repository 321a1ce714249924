"""Finds the lines that only some cells reach: those of one byte order, of one kernel's code."""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quizmatrix.coverage.sources import tree_of
from quizmatrix.coverage.trace import Trace


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one file that the same cells reach, with no other code between them. first, last: numbers.

    lines: how many of them are code.
    """

    file: str
    first: int
    last: int
    lines: int


class PartlyReached(msgspec.Struct, frozen=True, kw_only=True):
    """What some cells reach, and others that have its tree do not.

    cells: those that do. is_compiled: whether the others have code there.
    """

    cells: frozenset[str]
    others: frozenset[str]
    is_compiled: bool
    stretches: list[Stretch]

    @property
    def lines(self) -> int:
        """How many lines of code that is."""
        return sum(stretch.lines for stretch in self.stretches)


class TreeCount(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a tree was reached. cells: of each that has it, the lines reached and all lines."""

    tree: str
    reached: int
    lines: int
    cells: dict[str, tuple[int, int]]


# By line, the cells that have code there, and whether they reach it.
MergedLines = dict[int, dict[str, bool]]


def merge(traces: Sequence[Trace]) -> dict[str, MergedLines]:
    """The lines of all traces, by file. A cell of several guests reaches what one of them does."""
    merged: dict[str, MergedLines] = {}
    for trace in traces:
        for name, file in trace.files.items():
            own = merged.setdefault(name, {})
            for number, ran in file.lines.items():
                cells = own.setdefault(number, {})
                cells[trace.cell] = cells.get(trace.cell, False) or ran
    return merged


def count(merged: Mapping[str, MergedLines]) -> list[TreeCount]:
    """How much of each tree was reached, sorted by name."""
    counts = []
    for tree, files in sorted(_by_tree(merged).items()):
        reached = lines = 0
        cells: dict[str, tuple[int, int]] = {}
        for there in (line for file in files for line in merged[file].values()):
            lines += 1
            reached += any(there.values())
            for cell, ran in there.items():
                had = cells.get(cell, (0, 0))
                cells[cell] = (had[0] + ran, had[1] + 1)
        counts.append(TreeCount(tree=tree, reached=reached, lines=lines, cells=dict(sorted(cells.items()))))
    return counts


def find(merged: Mapping[str, MergedLines], traces: Sequence[Trace]) -> list[PartlyReached]:
    """What only some of the cells that have its tree reach: first what the others have, too, then the rest.

    The first line of a function has code where the compiler has made a function of it, and none where that is
    part of its callers, so that says nothing.
    """
    heads: dict[str, set[int]] = defaultdict(set)
    for name, counted in (item for trace in traces for item in trace.files.items()):
        heads[name] |= counted.heads
    stretches: dict[tuple[frozenset[str], frozenset[str], bool], list[Stretch]] = defaultdict(list)
    for files in _by_tree(merged).values():
        have = frozenset(cell for file in files for cells in merged[file].values() for cell in cells)
        for file in sorted(files):
            kinds = [(_kind(cells, have), number) for number, cells in sorted(merged[file].items())]
            for kind, group in itertools.groupby(kinds, operator.itemgetter(0)):
                if kind is None:
                    continue
                numbers = [number for _, number in group if kind[2] or number not in heads[file]]
                if not numbers:
                    continue
                stretches[kind].append(
                    Stretch(file=file, first=numbers[0], last=numbers[-1], lines=len(numbers))
                )
    found = [
        PartlyReached(cells=cells, others=others, is_compiled=compiled, stretches=these)
        for (cells, others, compiled), these in stretches.items()
    ]
    return sorted(found, key=lambda one: (not one.is_compiled, -one.lines, sorted(one.cells)))


def _kind(there: dict[str, bool], have: frozenset[str]) -> tuple[frozenset[str], frozenset[str], bool] | None:
    """Who reaches a line, who does not, and whether those have code there; None where all or none do."""
    cells = frozenset(cell for cell, ran in there.items() if ran)
    others = have - cells
    if not cells or not others:
        return None
    return cells, others, any(cell in there for cell in others)


def _by_tree(merged: Iterable[str]) -> dict[str, list[str]]:
    trees: dict[str, list[str]] = defaultdict(list)
    for file in merged:
        trees[tree_of(file)].append(file)
    return trees
