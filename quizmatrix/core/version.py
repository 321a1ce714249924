"""Parses and orders kernel versions: releases, candidates, linux-next and local versions."""

from __future__ import annotations

import re
from functools import total_ordering

_NUMBERS = r"(\d+)\.(\d+)(?:\.(\d+))?(?:-rc(\d+))?"
_VERSION = re.compile(rf"v?{_NUMBERS}(?:-next-(\d{{8}}))?([-+][\w.+~-]*)?", re.ASCII)
_LEADING = re.compile(_NUMBERS, re.ASCII)
_NEXT = re.compile(r"next-(\d{8})", re.ASCII)

# The development branch, ahead of the next candidate.
MASTER = "master"

# Greater than any number in a version.
_LAST = 1 << 62

Natural = tuple[tuple[int, str], ...]


@total_ordering
class KernelVersion:
    """An upstream kernel version, with the suffix that a distribution or builder appends to it.

    `6.12` (a series), `6.12.95`, `6.13-rc2`, `v6.12` (a tag), `6.13-rc2-next-20261120` and
    `next-20261120` (linux-next), `6.1.5-mine+` (the suffix is called a local version).

    Order: a release candidate comes before its release, linux-next after the candidate or release it is
    based on, a local version after the version without it. A series counts as its first release. A
    linux-next without a base version is newer than every numbered version. Local versions are compared
    with the numbers in them as numbers.
    """

    def __init__(self, text: str) -> None:
        """Parse `text`; raises ValueError if it is not a kernel version."""
        self.text = text.removeprefix("v")
        bare = _NEXT.fullmatch(text)
        if bare is not None:
            self.series, self.is_series, self.local = text, False, ""
            self._order: tuple[int, int, int, int, int, Natural] = (_LAST, 0, 0, 0, int(bare.group(1)), ())
            return
        match = _VERSION.fullmatch(text)
        if match is None:
            raise ValueError(f"not a kernel version: {text!r}")
        major, minor, patch, candidate, date, local = match.groups()
        self.local = local or ""
        self.series = f"{int(major)}.{int(minor)}"
        self.is_series = self.text == f"{major}.{minor}"
        self._order = (
            int(major),
            int(minor),
            int(patch or 0),
            int(candidate) if candidate else _LAST,
            int(date or 0),
            natural_key(self.local),
        )

    @property
    def is_candidate(self) -> bool:
        """Whether it precedes a release: a candidate, linux-next of one, or linux-next without a base."""
        return self._order[3] != _LAST

    @property
    def is_next(self) -> bool:
        """Whether it is a linux-next without a base version: `next-20261120`."""
        return self._order[0] == _LAST

    @property
    def is_upstream(self) -> bool:
        """Whether it is a series, a release or a candidate, without a suffix."""
        return self._order[4:] == (0, ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelVersion) and self._order == other._order

    def __lt__(self, other: KernelVersion) -> bool:
        return self._order < other._order

    def __hash__(self) -> int:
        return hash(self._order)

    def __repr__(self) -> str:
        return f"KernelVersion({self.text!r})"


def is_unreleased(text: str) -> bool:
    """Whether `text` names an unreleased kernel: `master`, linux-next or a candidate."""
    try:
        version = KernelVersion(text)
    except ValueError:
        return text == MASTER
    return version.is_next or version.is_candidate


def series_of(text: str) -> str:
    """The series of a kernel version; empty if `text` is not one."""
    try:
        return KernelVersion(text).series
    except ValueError:
        return ""


def natural_key(text: str) -> Natural:
    """A sort key that compares the numbers in texts as numbers."""
    return tuple(
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text) if part
    )


def leading_version(text: str) -> KernelVersion | None:
    """The upstream version at the beginning of `text` (`6.1.176-1` -> 6.1.176); None if there is none.

    Debian writes a release candidate with `~`, so that it sorts before the release.
    """
    match = _LEADING.match(text.replace("~rc", "-rc"))
    return KernelVersion(match.group()) if match else None
