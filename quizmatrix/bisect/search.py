"""Finds the version where an outcome changes: which versions to test next, and what is known so far."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Side(StrEnum):
    """How a version's test ended: like the first version's, like the last one's, or not at all."""

    FIRST = "first"
    LAST = "last"
    UNTESTABLE = "untestable"


class VersionSearch:
    """A search among versions in order. The first and the last are known to end differently.

    Several are tested at a time: N tests a round leave an (N+1)th of the range. Versions that cannot be
    tested are skipped, as git-bisect(1) does.
    """

    def __init__(self, count: int) -> None:
        """count: the number of versions, both ends included; at least 2."""
        self._sides = {0: Side.FIRST, count - 1: Side.LAST}

    @property
    def before(self) -> int:
        """The last version that is known to end as the first one does, below `after`."""
        return max(at for at, side in self._sides.items() if side is Side.FIRST and at < self.after)

    @property
    def after(self) -> int:
        """The first version that is known to end as the last one does."""
        return min(at for at, side in self._sides.items() if side is Side.LAST)

    @property
    def between(self) -> list[int]:
        """The versions between `before` and `after`: not tested yet, or untestable."""
        return list(range(self.before + 1, self.after))

    def next(self, at_a_time: int) -> list[int]:
        """The versions to test next, at most `at_a_time`; none when the search is over."""
        open_ones = [at for at in self.between if at not in self._sides]
        if len(open_ones) <= at_a_time:
            return open_ones
        # Evenly among the untested ones, so that untestable versions do not make a part longer.
        distance = len(open_ones) / (at_a_time + 1)
        return sorted({open_ones[int(distance * number)] for number in range(1, at_a_time + 1)})

    def tell(self, at: int, side: Side) -> None:
        """Record how a version's test ended."""
        self._sides[at] = side

    def untestable(self) -> Collection[int]:
        """Those between `before` and `after` that could not be tested."""
        return [at for at in self.between if self._sides.get(at) is Side.UNTESTABLE]
