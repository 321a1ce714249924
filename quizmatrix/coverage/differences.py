"""Finds the lines that only some cells reach: those of one byte order, of one kernel's code."""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

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


class Elsewhere(StrEnum):
    """What lines are in the cells that do not reach them.

    NOT_REACHED: one of these has code there. NOT_COMPILED: none has, and one has code elsewhere in the file.
    NOT_COUNTED: none has counters of the file, so nothing is known.
    """

    NOT_REACHED = "not reached"
    NOT_COMPILED = "not compiled"
    NOT_COUNTED = "not counted"


class LineKind(msgspec.Struct, frozen=True, kw_only=True):
    """Who reaches a line, and who has its tree and does not. cells: those that do."""

    cells: frozenset[str]
    others: frozenset[str]
    elsewhere: Elsewhere


class PartlyReached(LineKind, frozen=True, kw_only=True):
    """All lines of one kind."""

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
    """What only some of the cells that have its tree reach: first what the others do not reach.

    The first line of a function has code where the compiler has made a function of it, and none where that is
    part of its callers. So it is left out of what only some compile.
    """
    heads: dict[str, set[int]] = defaultdict(set)
    for name, counted in (item for trace in traces for item in trace.files.items()):
        heads[name] |= counted.heads
    stretches: dict[LineKind, list[Stretch]] = defaultdict(list)
    for files in _by_tree(merged).values():
        have = frozenset(cell for file in files for cells in merged[file].values() for cell in cells)
        for file in sorted(files):
            in_file = frozenset(cell for cells in merged[file].values() for cell in cells)
            kinds = [(_kind(cells, in_file, have), number) for number, cells in sorted(merged[file].items())]
            for kind, group in itertools.groupby(kinds, operator.itemgetter(0)):
                if kind is None:
                    continue
                is_head = heads[file] if kind.elsewhere is Elsewhere.NOT_COMPILED else frozenset()
                if numbers := [number for _, number in group if number not in is_head]:
                    stretches[kind].append(
                        Stretch(file=file, first=numbers[0], last=numbers[-1], lines=len(numbers))
                    )
    found = [
        PartlyReached(**msgspec.structs.asdict(kind), stretches=these) for kind, these in stretches.items()
    ]
    order = list(Elsewhere)
    return sorted(found, key=lambda one: (order.index(one.elsewhere), -one.lines, sorted(one.cells)))


def _kind(there: Mapping[str, bool], in_file: frozenset[str], have: frozenset[str]) -> LineKind | None:
    """The kind of a line; None where all cells reach it, or none does.

    there: the cells with code there. in_file: those with counters of its file. have: those with its tree.
    """
    cells = frozenset(cell for cell, ran in there.items() if ran)
    others = have - cells
    if not cells or not others:
        return None
    if any(cell in there for cell in others):
        elsewhere = Elsewhere.NOT_REACHED
    else:
        elsewhere = Elsewhere.NOT_COMPILED if others & in_file else Elsewhere.NOT_COUNTED
    return LineKind(cells=cells, others=others, elsewhere=elsewhere)


def _by_tree(merged: Iterable[str]) -> dict[str, list[str]]:
    trees: dict[str, list[str]] = defaultdict(list)
    for file in merged:
        trees[tree_of(file)].append(file)
    return trees
