"""Reads a run's results from its events.jsonl, also where the run was killed."""

from __future__ import annotations

import contextlib
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
    """What a run's events contain.

    results: the same as in results.json. planned: the ids of all cells, in the matrix's order. unended: the
    cells without a verdict, each with the last stage it reached (None: it did not begin). notes: notes on the
    whole run, and on its cells as `CELL: TEXT`.
    """

    results: RunResults
    planned: list[str] = []
    unended: dict[str, Stage | None] = {}
    notes: list[str] = []


class _EventReader:
    """Collects the facts from a run's events, one event at a time."""

    def __init__(self) -> None:
        self.started: RunStarted | None = None
        self.finished: RunFinished | None = None
        self.reached: dict[str, Stage] = {}
        self.cells: dict[str, CellResult] = {}
        self.notes: list[str] = []

    def take(self, event: EventLine) -> None:
        """Add one event."""
        match event:
            case RunStarted():
                self.started = self.started or event
            case RunFinished():
                self.finished = event
            case RunResumed():
                self.finished = None
                for cell in event.cells:
                    self.cells.pop(cell, None)
                    self.reached.pop(cell, None)
            case CellReached():
                self.reached[event.cell] = event.stage
            case CellFinished():
                self.cells[event.result.cell] = event.result
            case CellNote():
                self.notes.append(f"{event.cell}: {event.text}" if event.cell else event.text)

    def conclude(self, started: RunStarted) -> Replay:
        """The facts of all events. started: the run's first event."""
        order = dict.fromkeys([*started.cells, *self.reached, *self.cells])
        ended = [self.cells[cell] for cell in order if cell in self.cells]
        results = RunResults(
            run=started.run,
            command=started.command,
            handoff=started.handoff,
            matrix=started.matrix,
            folder=started.folder,
            arguments=started.arguments,
            options=started.options,
            started=started.started,
            finished=self.finished.finished if self.finished else None,
            exit_code=self.finished.exit_code if self.finished else None,
            totals=dict(Counter(str(cell.outcome) for cell in ended)),
            cells=ended,
        )
        return Replay(
            results=results,
            planned=list(order),
            unended={cell: self.reached.get(cell) for cell in order if cell not in self.cells},
            notes=self.notes,
        )


def replay(path: Path) -> Replay:
    """Read an events.jsonl, also one that a killed run or a full disk has cut off.

    Lines that cannot be read (incomplete, or from a newer version) are skipped. Raises UsageError where there
    is no file, DamagedError where the event that begins a run is missing.
    """
    record = _EventReader()
    decoder = msgspec.json.Decoder(EventLine)
    try:
        # Read as bytes: only a newline ends a line, and a damaged line may be no UTF-8.
        with path.open("rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    record.take(decoder.decode(line))
    except OSError as error:
        raise UsageError(f"{path} cannot be read", cause=error.strerror or str(error)) from error
    if record.started is None:
        raise DamagedError(f"{path} does not say what was run")
    return record.conclude(record.started)
