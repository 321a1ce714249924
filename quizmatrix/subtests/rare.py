"""Suites whose readers are imported only where an output has signs of them: it takes a run's time."""

from __future__ import annotations

from quizmatrix.subtests import fstests, kirk, ltp
from quizmatrix.subtests.suite import SuiteReader

# How lines of their formats begin, after blanks.
LINES = b"|".join((kirk.LINES, ltp.LINES, fstests.LINES))


def readers(max_named: int) -> list[SuiteReader]:
    """A reader of each, in the order in which they get each line."""
    of_kirk = kirk.KirkReader(max_named)
    return [
        of_kirk,
        ltp.LtpReader(of_kirk, max_named),
        fstests.XfstestsReader(max_named),
        fstests.BlktestsReader(max_named),
    ]
