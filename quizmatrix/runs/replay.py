"""A run's results from its events alone, however far it came."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from quizmatrix.core.errors import DamagedError, UsageError
from quizmatrix.model.events import (
    CellFinished,
    CellNote,
    CellReached,
    EventLine,
    RunFinished,
    RunResumed,
    RunStarted,
)
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.stage import Stage


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What the events tell.

    results: what results.json holds. planned: the ids of all cells, in the matrix's order. unended: those
    without a verdict, with the stage they had reached (None: they had not begun). notes: what was said of the
    run as a whole, and of its cells, `CELL: TEXT`.
    """

    results: RunResults
    planned: list[str] = []
    unended: dict[str, Stage | None] = {}
    notes: list[str] = []


def replay(path: Path) -> Replay:
    """Read an events.jsonl, to where a killed run or a full disk has cut it off.

    A line that cannot be read, half written or from a newer version, is passed over. UsageError where
    there is no file, DamagedError where it does not say what was run.
    """
    started: RunStarted | None = None
    finished: RunFinished | None = None
    reached: dict[str, Stage] = {}
    cells: dict[str, CellResult] = {}
    notes: list[str] = []
    decoder = msgspec.json.Decoder(EventLine)
    try:
        # Bytes: a line is ended by a newline alone, and a damaged one need not be UTF-8.
        with path.open("rb") as file:
            for line in file:
                try:
                    event = decoder.decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
                if isinstance(event, RunStarted):
                    started = started or event
                elif isinstance(event, RunFinished):
                    finished = event
                elif isinstance(event, RunResumed):
                    finished = None
                    for cell in event.cells:
                        cells.pop(cell, None)
                        reached.pop(cell, None)
                elif isinstance(event, CellReached):
                    reached[event.cell] = event.stage
                elif isinstance(event, CellFinished):
                    cells[event.result.cell] = event.result
                elif isinstance(event, CellNote):
                    notes.append(f"{event.cell}: {event.text}" if event.cell else event.text)
    except OSError as error:
        raise UsageError(f"{path} cannot be read", cause=error.strerror or str(error)) from error
    if started is None:
        raise DamagedError(f"{path} does not say what was run")
    order = dict.fromkeys([*started.cells, *reached, *cells])
    ended = [cells[cell] for cell in order if cell in cells]
    return Replay(
        results=RunResults(
            run=started.run,
            command=started.command,
            handoff=started.handoff,
            matrix=started.matrix,
            folder=started.folder,
            arguments=started.arguments,
            started=started.started,
            finished=finished.finished if finished else None,
            exit_code=finished.exit_code if finished else None,
            totals=dict(Counter(str(cell.outcome) for cell in ended)),
            cells=ended,
        ),
        planned=list(order),
        unended={cell: reached.get(cell) for cell in order if cell not in cells},
        notes=notes,
    )
