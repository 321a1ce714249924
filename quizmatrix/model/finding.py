"""Finding: an error or warning that a kernel printed, with its trace; and how a matrix says to treat it."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec


class FindingKind(StrEnum):
    """What sort of finding it is (the kernel documents admin-guide/bug-hunting and dev-tools)."""

    PANIC = "panic"
    OOPS = "oops"
    ZFS_PANIC = "zfs-panic"
    WARNING = "warning"
    BUG = "bug"
    LOCKDEP = "lockdep"
    KASAN = "kasan"
    KMSAN = "kmsan"
    KCSAN = "kcsan"
    KFENCE = "kfence"
    UBSAN = "ubsan"
    HUNG_TASK = "hung-task"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    RCU_STALL = "rcu-stall"

    @property
    def is_fatal(self) -> bool:
        """Whether the kernel, or the thread that it happened to, does not go on after it."""
        return self in _FATAL


_FATAL = frozenset({FindingKind.PANIC, FindingKind.OOPS, FindingKind.ZFS_PANIC})


class SplatPolicy(StrEnum):
    """What a finding that is not fatal means for a cell whose command passed."""

    FAIL = "fail"
    WARN = "warn"
    IGNORE = "ignore"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One error or warning that a kernel printed.

    title: its first line. line: the number of that line in the console, from 0. block: its lines without
    times, a bounded number of them. functions: where it happened, the innermost first, without what only
    reports. fingerprint: the same for the same finding wherever it is met (see fingerprint.py). count: how
    often it was met. allowed: whether the matrix knows it. places: files and lines of the block's
    `function+0xoffset/0xsize`, where they are known.
    """

    kind: FindingKind
    title: str
    line: int
    block: list[str]
    functions: list[str]
    fingerprint: str
    count: int = 1
    allowed: bool = False
    places: dict[str, str] = {}

    @property
    def summary(self) -> FindingSummary:
        """What results.json says of it."""
        return FindingSummary(
            kind=self.kind,
            title=self.title,
            fingerprint=self.fingerprint,
            count=self.count,
            allowed=self.allowed,
        )


class FindingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in results.json: see Finding, which findings.json in the cell's folder has."""

    kind: FindingKind
    title: str
    fingerprint: str
    count: int = 1
    allowed: bool = False


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell's matrix makes of findings that are not fatal.

    allow: what is known: fingerprints, and regular expressions that occur in a title or in the name of one
    of the functions.
    """

    splat: SplatPolicy = SplatPolicy.FAIL
    allow: tuple[str, ...] = ()

    def apply(self, findings: list[Finding]) -> list[Finding]:
        """The findings that are of interest, with those marked that are allowed."""
        return [
            msgspec.structs.replace(finding, allowed=self._knows(finding))
            for finding in findings
            if finding.kind.is_fatal or self.splat is not SplatPolicy.IGNORE
        ]

    def _knows(self, finding: Finding) -> bool:
        return not finding.kind.is_fatal and any(
            text == finding.fingerprint
            or any(re.search(text, where) for where in (finding.title, *finding.functions))
            for text in self.allow
        )


def check_allowed(text: str) -> None:
    """ValueError where `text` is no regular expression."""
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"`{text}` is no regular expression: {error}") from error
    if not text:
        raise ValueError("an empty one would allow everything")
