"""Puts a guest's folders into slots: 9p devices with neutral names, of which there are more than needed.

So guests with different folders have the same devices, and one template (run/template.py) serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence

from quizmatrix.model.spec import Share

# How many slots a guest has: the least of these that is enough.
_COUNTS = (8, 16, 32)


def count_for(folders: int, room: int) -> int:
    """How many slots a guest with so many folders has. room: how many its bus has room for."""
    return next((count for count in _COUNTS if folders <= count <= room), folders)


def name_of(number: int) -> str:
    """The name by which a guest mounts what is in a slot."""
    return f"share{number}"


def lines_of(shares: Sequence[Share]) -> str:
    """For the guest: each folder's tag and the name of its slot."""
    return "\n".join(f"{share.tag} {name_of(number)}" for number, share in enumerate(shares))


def filled(shares: Sequence[Share], count: int) -> list[Share]:
    """A folder for each of `count` slots; the rest gets the first one, which the guest may read anyway."""
    return [*shares, *[Share(tag="", path=share.path) for share in shares[:1]] * (count - len(shares))]
