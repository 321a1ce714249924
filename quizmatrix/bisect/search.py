"""The search for the version where an outcome changes: which ones to test next, and what is known."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Side(StrEnum):
    """How a version ended: as the first one, as the last one, or in no way that tells."""

    FIRST = "first"
    LAST = "last"
    UNTESTABLE = "untestable"


class VersionSearch:
    """A search among versions in their order, of which the first and the last are known to end differently.

    Several are tested at a time: with N, each round leaves an N+1st part. Those that cannot be tested are
    passed over, as git-bisect(1) skips.
    """

    def __init__(self, count: int) -> None:
        """count: of the versions, both ends included; at least 2."""
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
        """The versions where it may have changed before `after`; none of them tells."""
        return list(range(self.before + 1, self.after))

    def next(self, at_a_time: int) -> list[int]:
        """The versions to test now, at most so many; none where all is known that can be."""
        open_ones = [at for at in self.between if at not in self._sides]
        if len(open_ones) <= at_a_time:
            return open_ones
        # Evenly among those that are left: what cannot be tested does not make a part longer.
        distance = len(open_ones) / (at_a_time + 1)
        return sorted({open_ones[int(distance * number)] for number in range(1, at_a_time + 1)})

    def tell(self, at: int, side: Side) -> None:
        """Hear how a version ended."""
        self._sides[at] = side

    def untestable(self) -> Collection[int]:
        """Those between `before` and `after` that could not be tested."""
        return [at for at in self.between if self._sides.get(at) is Side.UNTESTABLE]
