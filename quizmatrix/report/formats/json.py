"""Writes results.json to the file of --json."""

from __future__ import annotations

from collections.abc import Iterator

from quizmatrix.core.json import to_json
from quizmatrix.report.formats.source import ReportSource


def render(source: ReportSource) -> Iterator[bytes]:
    """The same JSON as in results.json."""
    yield to_json(source.results)
