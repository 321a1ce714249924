"""Says from which work trees the OpenZFS of a run's cells is."""

from __future__ import annotations

from quizmatrix.core.text import clean_line
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import BuiltFrom


def words(built: BuiltFrom) -> str:
    """`/home/me/zfs, main 1a2b3c4d5e6f`."""
    return clean_line(", ".join(filter(None, (built.tree, built.head))))


def lines(results: list[CellResult]) -> list[str]:
    """A line for each tree; it names the cells only where there are several trees."""
    trees: dict[str, list[str]] = {}
    for result in results:
        if result.built_from is not None:
            trees.setdefault(words(result.built_from), []).append(result.cell)
    if len(trees) == 1:
        return [f"OpenZFS is from {tree}" for tree in trees]
    return [f"OpenZFS is from {tree}: {', '.join(cells)}" for tree, cells in trees.items()]
