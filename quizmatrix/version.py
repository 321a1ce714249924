"""Kernel versions, as kernel practice orders them."""

from __future__ import annotations

import re
from functools import total_ordering

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-rc(\d+))?")


@total_ordering
class KernelVersion:
    """An upstream kernel version: `6.12` (a series), `6.12.95`, `6.13-rc2`.

    A release candidate comes before the release it leads to, and a series sorts as its first release.
    """

    def __init__(self, text: str) -> None:
        """Parse `text`; raises ValueError where it is not a kernel version."""
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ValueError(f"not a kernel version: {text!r}")
        major, minor, patch, candidate = match.groups()
        self.text = text
        self.series = f"{int(major)}.{int(minor)}"
        self.is_series = patch is None and candidate is None
        no_candidate = 1 << 30
        self._order = (
            int(major),
            int(minor),
            int(patch or 0),
            int(candidate) if candidate else no_candidate,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelVersion) and self._order == other._order

    def __lt__(self, other: KernelVersion) -> bool:
        return self._order < other._order

    def __hash__(self) -> int:
        return hash(self._order)

    def __repr__(self) -> str:
        return f"KernelVersion({self.text!r})"


def leading_version(text: str) -> KernelVersion | None:
    """The version that `text` begins with (`6.1.176-1` -> 6.1.176), or None where it begins otherwise.

    Debian writes a release candidate with `~`, so that it sorts before the release.
    """
    match = _VERSION.match(text.replace("~rc", "-rc"))
    return KernelVersion(match.group()) if match else None
