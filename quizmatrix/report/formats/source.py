"""Reads a run directory once, for all report formats."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.stage import Stage
from quizmatrix.runs import directory, spans
from quizmatrix.runs.replay import replay
from quizmatrix.runs.spans import Span


class ReportSource(msgspec.Struct, frozen=True, kw_only=True):
    """A run and the folder of its logs. unended, notes: see replay.Replay. spans: when its cells ran."""

    folder: Path
    results: RunResults
    unended: dict[str, Stage | None] = {}
    notes: list[str] = []
    spans: list[Span] = []

    @property
    def cells(self) -> list[CellResult]:
        """The cells that have a verdict, in the matrix's order."""
        return self.results.cells

    @property
    def unended_sentence(self) -> str:
        """A sentence that names the cells without a verdict; empty where all have one."""
        if not self.unended:
            return ""
        named = [f"{cell} ({stage or 'not begun'})" for cell, stage in self.unended.items()]
        more = f" and {len(named) - 20} more" if len(named) > 20 else ""
        return f"The run has not finished, or was killed. Without a verdict: {', '.join(named[:20])}{more}."


def load(folder: Path) -> ReportSource:
    """Read a run directory from its events or, where an older version wrote none, from results.json.

    Raises the errors of directory.load.
    """
    try:
        told = replay(folder / directory.EVENTS)
    except QuizmatrixError:
        return ReportSource(folder=folder, results=directory.load(folder))
    found = ReportSource(folder=folder, results=told.results, unended=told.unended, notes=told.notes)
    with contextlib.suppress(OSError):
        found = msgspec.structs.replace(found, spans=spans.read(folder / directory.EVENTS))
    return found
