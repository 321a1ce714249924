"""Outcomes of cells, and the exit status of a run."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What happened in one cell; the documentation has a table of the outcomes."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    PANICKED = "panicked"
    SPLAT = "splat"
    BOOT_FAILED = "boot-failed"
    LOST = "lost"
    UNPREPARED = "unprepared"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_verdict(self) -> bool:
        """Whether the command was really tested, so that a retry is not needed."""
        return self in VERDICTS


VERDICTS = frozenset({Outcome.PASSED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.PANICKED, Outcome.SPLAT})

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_TIMED_OUT = 124
EXIT_NO_VERDICT = 125
EXIT_INTERRUPTED = 130
# A shell's status for a program that wrote to a pipe without a reader (128 + SIGPIPE).
EXIT_BROKEN_PIPE = 141
