"""Reports of a run: for programs (JSON, JUnit), for a pull request (Markdown), for a browser (HTML)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quizmatrix.report.formats.source import ReportSource


class Format(StrEnum):
    """The format of a report. Each value is also the name of its option and of its module."""

    JSON = "json"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    HTML = "html"


def render(form: Format, source: ReportSource) -> Iterator[bytes]:
    """The report in pieces, so that it is never in memory as a whole."""
    # Each format is imported only when it is used: junitparser takes time.
    parts: Iterator[bytes] = importlib.import_module(f"quizmatrix.report.formats.{form}").render(source)
    return parts
