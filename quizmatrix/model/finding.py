"""Finding: an error or warning that a kernel printed, with its trace; and how a matrix says to treat it."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec


class FindingKind(StrEnum):
    """The kinds of findings (kernel documents admin-guide/bug-hunting and dev-tools)."""

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
    # Not printed: what the guest said when the command outlived its time limit.
    HANG = "hang"

    @property
    def is_fatal(self) -> bool:
        """Whether it stops the kernel, or the thread that it happened in."""
        return self in _FATAL


_FATAL = frozenset({FindingKind.PANIC, FindingKind.OOPS, FindingKind.ZFS_PANIC, FindingKind.HANG})


class SplatPolicy(StrEnum):
    """The effect of a non-fatal finding on a cell whose command passed."""

    FAIL = "fail"
    WARN = "warn"
    IGNORE = "ignore"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One error or warning that a kernel printed.

    title: its first line.
    line: the number of that line in the console, from 0.
    block: its lines without time stamps, up to a limit.
    functions: the functions of its trace, the innermost first, without those that only report.
    fingerprint: equal for the same finding in all cells and runs (see console/fingerprint.py).
    count: how often it occurred.
    allowed: whether the matrix allows it.
    places: source file and line for each `function+0xoffset/0xsize` of the block, if known.
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
        """The finding as in results.json."""
        return FindingSummary(
            kind=self.kind,
            title=self.title,
            fingerprint=self.fingerprint,
            count=self.count,
            allowed=self.allowed,
        )


class FindingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in results.json. findings.json in the cell's folder has the whole Finding."""

    kind: FindingKind
    title: str
    fingerprint: str
    count: int = 1
    allowed: bool = False


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """How a cell's non-fatal findings are treated.

    splat: their effect on the outcome.
    allow: known findings: fingerprints, or regular expressions that match a title or a function's name.
    """

    splat: SplatPolicy = SplatPolicy.FAIL
    allow: tuple[str, ...] = ()

    def apply(self, findings: list[Finding]) -> list[Finding]:
        """The findings without ignored ones; allowed ones are marked."""
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
    """Raises ValueError if `text` is empty or not a regular expression."""
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"`{text}` is not a regular expression: {error}") from error
    if not text:
        raise ValueError("an empty one would allow everything")
