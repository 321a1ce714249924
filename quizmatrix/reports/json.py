"""results.json once more."""

from __future__ import annotations

from collections.abc import Iterator

from quizmatrix.reports.source import Source
from quizmatrix.spec import to_json


def render(source: Source) -> Iterator[bytes]:
    """The results as results.json has them."""
    yield to_json(source.results)
