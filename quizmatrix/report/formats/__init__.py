"""Reports of a run: for programs (JSON, JUnit), for a pull request (Markdown), for a browser (HTML)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quizmatrix.report.formats.source import ReportSource


class Format(StrEnum):
    """What a report is written as; each is the name of its option, too."""

    JSON = "json"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    HTML = "html"


def render(form: Format, source: ReportSource) -> Iterator[bytes]:
    """The report, in pieces: none of them is as long as a run's logs may be."""
    # Only what is asked for is imported: nobody else waits for junitparser.
    parts: Iterator[bytes] = importlib.import_module(f"quizmatrix.report.formats.{form}").render(source)
    return parts
