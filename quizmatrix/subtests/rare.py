"""Suites whose readers are imported only where an output has signs of them: it takes a run's time."""

from __future__ import annotations

from quizmatrix.subtests import fstests, ltp
from quizmatrix.subtests.suite import SuiteReader

# How lines of their formats begin, after blanks.
LINES = ltp.LINES + b"|" + fstests.LINES


def readers(max_named: int) -> list[SuiteReader]:
    """A reader of each."""
    return [kind(max_named) for kind in (ltp.LtpReader, fstests.XfstestsReader, fstests.BlktestsReader)]
