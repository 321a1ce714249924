"""The events of a run: shown as progress, and written to events.jsonl."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from quizmatrix.model.matrix import Handoff
from quizmatrix.model.options import RunOptions
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.stage import Stage


class CellReached(msgspec.Struct, frozen=True, kw_only=True, tag="stage", tag_field="event"):
    """A cell reached a stage. host: the name of the other host that runs it."""

    cell: str
    stage: Stage
    attempt: int = 1
    host: str = ""


class CellNote(msgspec.Struct, frozen=True, kw_only=True, tag="note", tag_field="event"):
    """A message about a cell for the user; an empty `cell` means the whole run."""

    cell: str
    text: str


class CellConsole(msgspec.Struct, frozen=True, kw_only=True, tag="console", tag_field="event"):
    """The last line of a cell's console. Shown, but not kept in events.jsonl (console.log has it)."""

    cell: str
    line: str


class CellFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", tag_field="event"):
    """A cell has ended, with this result."""

    result: CellResult


class RunStarted(msgspec.Struct, frozen=True, kw_only=True, tag="run-started", tag_field="event"):
    """The first line of events.jsonl. Fields: see result.RunResults. cells: the ids of its results."""

    run: str
    command: list[str]
    handoff: Handoff | None = None
    matrix: str = ""
    folder: str = ""
    arguments: list[str] = []
    options: RunOptions | None = None
    started: str
    cells: list[str] = []

    @classmethod
    def of(cls, results: RunResults, cells: Iterable[str]) -> RunStarted:
        """The event for a run that has no results yet."""
        return cls(
            run=results.run,
            command=results.command,
            handoff=results.handoff,
            matrix=results.matrix,
            folder=results.folder,
            arguments=results.arguments,
            options=results.options,
            started=results.started,
            cells=list(cells),
        )


class RunResumed(msgspec.Struct, frozen=True, kw_only=True, tag="run-resumed", tag_field="event"):
    """An interrupted run continues. cells: those that run again; their earlier results no longer count."""

    cells: list[str]


class RunFinished(msgspec.Struct, frozen=True, kw_only=True, tag="run-finished", tag_field="event"):
    """The last line of events.jsonl, unless the run was killed. RunResumed may follow."""

    finished: str
    exit_code: int


Event = CellReached | CellNote | CellConsole | CellFinished
# The events in events.jsonl, where each has a `time` at which it was written.
EventLine = Event | RunStarted | RunResumed | RunFinished
