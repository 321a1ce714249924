"""Writes index.html: how much of each tree ran, and the lines that only some cells reach."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core.text import clean_line
from quizmatrix.coverage.differences import Elsewhere, PartlyReached, Stretch, TreeCount
from quizmatrix.model.result import RunResults
from quizmatrix.report.common import ResultSite, place_of

# Places of one group that the page shows, and lines of one place.
_MOST_PLACES = 200
_MOST_LINES = 40

ELSEWHERE = {
    Elsewhere.NOT_REACHED: "",
    Elsewhere.NOT_COMPILED: ", compiled nowhere else",
    Elsewhere.NOT_COUNTED: ", of files with counters nowhere else",
}


class ReachedLines(msgspec.Struct, frozen=True, kw_only=True):
    """A group of lines that only some cells reach, as differences.json has it.

    words: what its cells have in common. elsewhere: what the lines are in the other cells. lines: how many
    lines of code.
    """

    words: str
    cells: list[str]
    others: list[str]
    elsewhere: Elsewhere
    lines: int
    places: list[Stretch]


def groups_of(results: RunResults, found: Sequence[PartlyReached]) -> list[ReachedLines]:
    """What was found, in the words of a run's results."""
    sites = sites_of(results)
    return [
        ReachedLines(
            words=words_of(one, sites),
            cells=sorted(one.cells),
            others=sorted(one.others),
            elsewhere=one.elsewhere,
            lines=one.lines,
            places=one.stretches,
        )
        for one in found
    ]


def render(
    results: RunResults,
    trees: Sequence[TreeCount],
    groups: Sequence[ReachedLines],
    notes: Sequence[str],
    sources: Path,
) -> str:
    """The page. notes: what is missing, and why. sources: the copies of all files, by their names."""
    import jinja2  # of the extra `coverage`

    text = (resources.files(__package__) / "page" / "index.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    return template.render(
        run=results.run,
        command=clean_line(results.command_words()),
        notes=notes,
        trees=trees,
        share=share,
        is_single=len({cell for tree in trees for cell in tree.cells}) == 1,
        groups=[_group(one, sources) for one in groups],
    )


def share(reached: int, lines: int) -> str:
    """`41.3%`."""
    # Rounded down: 100% is all of them.
    return f"{1000 * reached // lines / 10}%" if lines else ""


def sites_of(results: RunResults) -> list[ResultSite]:
    """The cells, once each, where their tests are split."""
    return list({result.unsharded: (result.unsharded, result) for result in results.cells}.values())


def words_of(one: PartlyReached, sites: Sequence[ResultSite]) -> str:
    """`only on s390x`, or the cells by name."""
    among = [site for site in sites if site[0] in one.cells | one.others]
    words = place_of(one.cells, among)
    return f"only {words}" if words else f"only in {', '.join(sorted(one.cells))}"


def _group(one: ReachedLines, sources: Path) -> dict[str, Any]:
    return {
        "words": one.words,
        "lines": one.lines,
        "elsewhere": ELSEWHERE[one.elsewhere],
        "parts": [_part(stretch, sources) for stretch in one.places[:_MOST_PLACES]],
        "left_out": max(0, len(one.places) - _MOST_PLACES),
    }


def _part(stretch: Stretch, sources: Path) -> dict[str, str]:
    where = f"{stretch.file}:{stretch.first}"
    where += f"-{stretch.last}" if stretch.last > stretch.first else ""
    lines = _lines(sources / stretch.file)[stretch.first - 1 : stretch.last]
    more = [f"... {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    return {"where": where, "text": "\n".join([*lines[:_MOST_LINES], *more])}


def _lines(file: Path) -> list[str]:
    # Not splitlines(), which ends a line at a form feed, too.
    return file.read_text(encoding="utf-8", errors="replace").split("\n")
