"""The colours of outcomes on a terminal."""

from __future__ import annotations

from quizmatrix.model.outcome import Outcome

_COLOURS = {
    Outcome.PASSED: "32",
    Outcome.FAILED: "31",
    Outcome.TIMED_OUT: "33",
    Outcome.PANICKED: "1;31",
    Outcome.SPLAT: "35",
    Outcome.BOOT_FAILED: "1;31",
    Outcome.LOST: "1;31",
    Outcome.UNPREPARED: "33",
}


def paint(text: str, outcome: Outcome, colour: bool) -> str:
    """`text` in the colour of `outcome`."""
    code = _COLOURS.get(outcome) if colour else None
    return f"\x1b[{code}m{text}\x1b[0m" if code else text
