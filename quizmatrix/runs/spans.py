"""When each cell of a run had a guest, and on which host: read from its events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from quizmatrix.model.events import CellFinished, CellReached, EventLine, RunStarted
from quizmatrix.model.stage import Stage


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The time that one cell had on a host, in seconds since the run began.

    host: its name; empty for the one where quizmatrix was typed. is_last: it led to the cell's result, and
    the host was not lost before.
    """

    cell: str
    host: str
    began: float
    ended: float
    is_last: bool = True


class _Timed(msgspec.Struct, frozen=True):
    time: str


def read(path: Path) -> list[Span]:
    """The spans of an events.jsonl, in the order in which they ended. Lines that cannot be read are left out.

    Raises OSError.
    """
    with path.open("rb") as file:
        return _spans(file)


def _spans(lines: Iterable[bytes]) -> list[Span]:
    events, times = msgspec.json.Decoder(EventLine), msgspec.json.Decoder(_Timed)
    found: list[Span] = []
    # Of each cell: the host, when it began there, and which attempt it was.
    going_on: dict[str, tuple[str, float, int]] = {}
    run_began: float | None = None

    def end(cell: str, now: float, *, is_last: bool) -> None:
        if (one := going_on.pop(cell, None)) is not None:
            found.append(Span(cell=cell, host=one[0], began=one[1], ended=now, is_last=is_last))

    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            event = events.decode(line)
            time = datetime.fromisoformat(times.decode(line).time).timestamp()
            run_began = time if run_began is None or isinstance(event, RunStarted) else run_began
            now = time - run_began
            if isinstance(event, CellFinished):
                end(event.result.cell, now, is_last=True)
            elif isinstance(event, CellReached):
                is_running = event.stage not in (Stage.WAITING, Stage.PREPARING)
                before = going_on.get(event.cell)
                if before is not None and (not is_running or before[0] != event.host):
                    # Its tests that failed may run once more; of a new attempt, nothing stays.
                    end(event.cell, now, is_last=not is_running and before[2] == event.attempt)
                if is_running:
                    going_on.setdefault(event.cell, (event.host, now, event.attempt))
    return found


def lanes(spans: Iterable[Span]) -> dict[str, list[list[Span]]]:
    """By host, its spans in as few lanes as hold them without overlaps, each in the order of time."""
    found: dict[str, list[list[Span]]] = {}
    for span in sorted(spans, key=lambda one: one.began):
        its = found.setdefault(span.host, [])
        free = next((lane for lane in its if lane[-1].ended <= span.began), None)
        if free is None:
            its.append([span])
        else:
            free.append(span)
    return found
