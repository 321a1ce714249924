"""Writes one HTML file: the grid, the logs and tests of all cells, with filters and a search.

All that a guest wrote is stored as base64 of compressed JSON, which contains nothing that an HTML parser
interprets, and the page's script shows it as text only. The page loads nothing and runs only that script: its
content security policy names the script and the style by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core.json import encode
from quizmatrix.core.text import clean_detail, clean_line
from quizmatrix.core.units import format_seconds
from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome, counted
from quizmatrix.report import builds, findings, grid, testtable
from quizmatrix.report.common import common_sentence
from quizmatrix.report.formats.excerpt import Excerpt, excerpt
from quizmatrix.report.formats.source import ReportSource
from quizmatrix.run.reproduce import command_of
from quizmatrix.runs.spans import Span
from quizmatrix.runs.spans import lanes as lanes_of

# Limits for one log in bytes, before compression: for a cell that is not as expected, and for other cells.
_BAD_LOG = 256 << 10
_GOOD_LOG = 16 << 10
# The limit for all logs together, so that a phone can show the page; and the least that a log gets.
_ALL_LOGS = 24 << 20
_LEAST_LOG = 2 << 10
# The largest number of tests that failed or differ, and of notes.
_MOST_TESTS = 2000
_MOST_NOTES = 200

_LOGS = ("console.log", "stdout", "stderr", "running.log", "qemu.log")
_LETTERS = {
    SubtestOutcome.PASSED: "p",
    SubtestOutcome.FAILED: "f",
    SubtestOutcome.SKIPPED: "s",
    SubtestOutcome.KILLED: "k",
    SubtestOutcome.FAILED_AS_EXPECTED: "e",
}
_PLACE = re.compile(r"\{\{(\w+)\}\}")


class _Log(msgspec.Struct, frozen=True, kw_only=True):
    """What the page knows about a log before it unpacks it. id: of the element that holds the log."""

    id: str
    name: str
    size: int
    left_out: int
    finding: int | None


def render(source: ReportSource) -> Iterator[bytes]:
    """The page in pieces, log by log."""
    style, script = (_page_file(f"report.{kind}") for kind in ("css", "js"))
    filled = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        "title": escape(f"quizmatrix {source.results.run}"),
        "style": style,
        "plain": escape(_without_script(source)),
        "script": script,
    }
    # All in one pass, so that placeholders in inserted text are not replaced.
    page = _PLACE.sub(lambda match: filled.get(match[1], match[0]), _page_file("report.html"))
    head, _, tail = page.partition("<!--data-->")
    yield head.encode(errors="replace")
    logs: dict[str, list[_Log]] = {}
    for number, (result, name, found) in enumerate(_logs(source)):
        log = _Log(
            id=f"log{number}", name=name, size=found.size, left_out=found.left_out, finding=found.finding
        )
        logs.setdefault(result.cell, []).append(log)
        yield _block(log.id, [[part.line, part.text] for part in found.parts])
    yield _block("data", _data(source, logs))
    yield tail.encode()


def _page_file(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(name: str, value: Any) -> bytes:
    """An element that a browser neither executes nor shows."""
    packed = base64.b64encode(zlib.compress(encode(value), 9))
    return f'<script type="text/plain" id="{name}">'.encode() + packed + b"</script>\n"


def _without_script(source: ReportSource) -> str:
    results = source.cells
    parts = [grid.grid(results), grid.notes(results), common_sentence(results)]
    parts.append(grid.summary(results, source.results.seconds))
    return "\n\n".join(part for part in (*parts, source.unended_sentence) if part)


def _logs(source: ReportSource) -> Iterator[tuple[CellResult, str, Excerpt]]:
    """The logs for the page, each cut so that all together stay within the limit."""
    wanted = []
    for result in source.cells:
        for name in _LOGS:
            path = source.folder / result.folder / name
            size = path.stat().st_size if path.is_file() else 0
            if size:
                limit = _GOOD_LOG if result.is_as_expected else _BAD_LOG
                wanted.append((result, name, path, min(size, limit)))
    share = min(1.0, _ALL_LOGS / max(1, sum(size for *_, size in wanted)))
    for result, name, path, size in wanted:
        limit = size if share == 1.0 else max(_LEAST_LOG, int(size * share))
        found = excerpt(path, limit, by_console=name == "console.log")
        if found is not None:
            yield result, name, found


def _data(source: ReportSource, logs: dict[str, list[_Log]]) -> dict[str, Any]:
    results = source.results
    seconds = source.results.seconds
    return {
        "run": results.run,
        "command": grid.command_words(results),
        "noun": grid.noun(results.cells),
        "started": results.started,
        "took": format_seconds(seconds) if seconds is not None else None,
        "exit": results.exit_code,
        "summary": grid.summary(results.cells, seconds),
        "sentence": common_sentence(results.cells),
        "remarks": list(filter(None, grid.notes(results.cells).split("\n"))),
        "unended": source.unended_sentence,
        "folder": clean_line(str(source.folder)),
        "notes": [clean_line(note) for note in source.notes[:_MOST_NOTES]],
        "grids": [
            {
                "corner": table.corner,
                "columns": table.columns,
                "rows": [[label, [one.cell if one else None for one in row]] for label, row in table.rows],
            }
            for table in grid.grids(results.cells)
        ],
        "cells": [_cell(source, result, logs.get(result.cell, [])) for result in results.cells],
        "tests": _tests(source),
        "chart": _chart(source),
    }


def _chart(source: ReportSource) -> dict[str, Any]:
    """When the cells ran, by host. There is none where fewer than two did."""
    spans = source.spans if len(source.spans) > 1 else []
    return {
        "length": max([1.0, *(span.ended for span in spans)]),
        "hosts": [
            [clean_line(host) or "this host", [[_bar(span) for span in lane] for lane in lanes]]
            for host, lanes in lanes_of(spans).items()
        ],
    }


def _bar(span: Span) -> list[Any]:
    words = f"{span.cell}: {format_seconds(span.ended - span.began)}, from {format_seconds(span.began)} on"
    if not span.is_last:
        words += "; it began anew"
    return [span.cell, span.began, span.ended, span.is_last, words]


def _cell(source: ReportSource, result: CellResult, logs: list[_Log]) -> dict[str, Any]:
    times = result.timings
    folder = source.folder / result.folder
    facts = {
        "release": result.release,
        "accelerator": result.accelerator,
        "profiles": ", ".join(result.profiles),
        "OpenZFS from": builds.words(result.built_from) if result.built_from else "",
        "tests": counted(result.subtests),
        "flaky": clean_line(result.flaky),
        "not run again": f"from {result.earlier}" if result.earlier else "",
        "attempts": str(result.attempts) if result.attempts > 1 else "",
        "times": ", ".join(
            f"{name} {format_seconds(value)}"
            for name, value in (
                ("prepare", times.prepare),
                ("boot", times.boot),
                ("profiles", times.profiles),
                ("command", times.command),
                ("total", times.total),
            )
            if value is not None
        ),
        "folder": clean_line(str(folder)) if logs else "",
        "disks": ", ".join(map(clean_line, grid.kept_disks([result], source.folder))),
    }
    by_console = result.outcome in grid.BY_CONSOLE
    bad = not result.is_as_expected
    told_of = [_finding(one, folder) for one in result.findings]
    told = not (by_console and bad) or findings.deciding_finding(result) is not None
    trace = [] if told else grid.evidence_lines(result, source.folder)
    return {
        "id": result.cell,
        "kernel": result.kernel,
        "arch": result.arch,
        "outcome": result.outcome,
        "words": grid.square_words(result),
        "bad": bad,
        "detail": clean_detail(result.detail),
        "time": format_seconds(times.command) if times.command is not None else "",
        "facts": [[name, value] for name, value in facts.items() if value],
        "findings": told_of,
        "trace": trace,
        "opens": bad and not (by_console and (told_of or trace)),
        "again": "\n".join(clean_line(line, 4000) for line in command_of(result, folder).split("\n")),
        "logs": sorted(logs, key=lambda log: (log.name == "console.log") != by_console),
    }


def _finding(summary: FindingSummary, folder: Path) -> list[Any]:
    """A finding's kind, count and whether it is allowed; and its important lines."""
    times = f" {summary.count} times" if summary.count > 1 else ""
    allowed = ", which the matrix allows" if summary.allowed else ""
    return [f"{summary.kind}{times}{allowed}", findings.important_lines(summary, folder)]


def _tests(source: ReportSource) -> dict[str, Any]:
    table = testtable.collect(source.cells, source.folder)

    def letter(test: Subtest | None) -> str:
        if test is None:
            return "-"
        return "r" if test.failed_before else _LETTERS[test.outcome]

    shown = list(table.rows.items())[:_MOST_TESTS]
    return {
        "cells": [cell.unsharded for cell in table.cells],
        "rows": [
            [name, "".join(letter(row.get(index)) for index in range(len(table.cells)))]
            for name, row in shown
        ],
        "left_out": len(table.rows) - len(shown),
        "sentences": testtable.sentences(table).split("\n"),
    }
