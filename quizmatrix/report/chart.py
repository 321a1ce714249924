"""Draws one cell's outcomes and times over its runs as a text chart (`runs show CELL --over T`)."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from statistics import median

from quizmatrix.core.units import format_seconds
from quizmatrix.model.outcome import Outcome
from quizmatrix.report.colour import paint
from quizmatrix.runs.history.kept import Point

_BLOCKS = "▁▂▃▄▅▆▇█"
# The largest number of blocks in the row, and of runs with their own line.
_MOST_BLOCKS = 100
_MOST_LINES = 40
_BAR = 30


def draw(points: list[Point], *, colour: bool = False, blocks: bool = False) -> str:
    """The chart as text: totals, and a line for each run, the newest last.

    points: the oldest first. blocks: for terminals, also draw a row of blocks and bars whose sizes are the
    command's time. Without it the text is ASCII.
    """
    times = [point.seconds for point in points if point.seconds is not None]
    longest = max(times, default=0.0)
    parts = [_totals(points, times)]
    if blocks:
        parts.append("".join(_block(point, longest, colour) for point in points[-_MOST_BLOCKS:]))
    if len(points) > _MOST_LINES:
        parts.append(f"the last {_MOST_LINES}:")
    parts += [_line(point, longest, colour=colour, blocks=blocks) for point in points[-_MOST_LINES:]]
    return "\n".join(parts)


def _totals(points: list[Point], times: list[float]) -> str:
    counts = Counter(point.outcome for point in points)
    counted = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    text = f"{len(points)} run{'s' if len(points) != 1 else ''}: {counted}"
    if times:
        shortest, middle, longest = (format_seconds(time) for time in (min(times), median(times), max(times)))
        text += f"; {shortest} to {longest}, median {middle}" if len(times) > 1 else f"; {middle}"
    return text


def _block(point: Point, longest: float, colour: bool) -> str:
    share = (point.seconds or 0) / longest if longest else 0.0
    return paint(_BLOCKS[round(share * (len(_BLOCKS) - 1))], point.outcome, colour)


def _line(point: Point, longest: float, *, colour: bool, blocks: bool) -> str:
    started = datetime.fromisoformat(point.started).astimezone().strftime("%Y-%m-%d %H:%M")
    seconds = format_seconds(point.seconds) if point.seconds is not None else ""
    line = f"{started}  {point.run}  {paint(f'{point.outcome:<11}', point.outcome, colour)}  {seconds:>7}"
    if blocks and point.seconds is not None and longest:
        line += "  " + paint("█" * max(1, round(point.seconds / longest * _BAR)), point.outcome, colour)
    return line.rstrip()
