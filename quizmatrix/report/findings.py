"""Formats kernel findings for a person: the important lines of a trace, and the cells that share it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.console.fingerprint import FRAME, RUNNING, is_machinery, plain_name
from quizmatrix.core.text import clean_line
from quizmatrix.model.finding import Finding, FindingKind, FindingSummary
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.run import findings

# The largest number of shown lines of a trace, and of a report without a trace.
_MOST_FRAMES = 7
_MOST_LINES = 9
# Outcomes that a finding causes.
_ABOUT_THEM = frozenset({Outcome.PANICKED, Outcome.SPLAT, Outcome.BOOT_FAILED})


def deciding_finding(result: CellResult) -> FindingSummary | None:
    """The finding that decides the outcome: the first fatal one, else the first that is not allowed."""
    ranked = sorted(result.findings, key=lambda finding: (not finding.kind.is_fatal, finding.allowed))
    return ranked[0] if ranked and not ranked[0].allowed else None


def important_lines(summary: FindingSummary, folder: Path) -> list[str]:
    """The important lines of a finding: title, message, functions of the trace, and fingerprint.

    folder: the cell's folder. If its findings.json cannot be read, only title and fingerprint are returned.
    """
    found = next((one for one in findings.load(folder) if one.fingerprint == summary.fingerprint), None)
    body = _body(found) if found else [summary.title]
    return [*map(clean_line, body), f"fingerprint: {summary.fingerprint} ({summary.kind})"]


def _body(finding: Finding) -> list[str]:
    block = finding.block
    start = next((number for number, line in enumerate(block) if line == finding.title), 0)
    before = [line for line in block[:start] if line and not line.startswith(("---", "8<"))]
    frames: dict[str, str] = {}
    for line in block[start:]:
        running = RUNNING.match(line)
        match = running or FRAME.match(line)
        if match is None or (running is None and (match["doubt"] or match["maybe"])):
            continue
        name = plain_name(match["name"])
        if name in finding.functions and not is_machinery(name):
            text = line[match.start("name") :].strip(" )")
            symbol = line[match.start("name") : match.end("size")]
            place = f"  ({finding.places[symbol]})" if symbol in finding.places else ""
            frames.setdefault(name, f"  {text}{place}")
    if not frames:
        return [*before, *block[start : start + _MOST_LINES]]
    second = block[start + 1 : start + 2]
    said = [line for line in second if not FRAME.match(line) and line.startswith(("PANIC at", "Oops"))]
    return [*before, finding.title, *said, *list(frames.values())[:_MOST_FRAMES]]


class OtherFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding that did not decide the outcome of its cells. lines: see important_lines."""

    cells: list[CellResult]
    lines: list[str]
    is_hang: bool = False

    @property
    def head(self) -> str:
        """`CELL (OUTCOME), CELL (OUTCOME): the kernel complained`."""
        what = "where it hung" if self.is_hang else "the kernel complained"
        return f"{', '.join(f'{one.cell} ({one.outcome})' for one in self.cells)}: {what}"


def others(results: list[CellResult], run: Path) -> list[OtherFinding]:
    """The findings that did not decide the outcome of their cells, each with all cells that have it.

    Findings that a matrix allows are left out.
    """
    alike: dict[str, list[tuple[CellResult, FindingSummary]]] = {}
    for result in results:
        if result.outcome not in _ABOUT_THEM:
            for summary in result.findings:
                if not summary.allowed:
                    alike.setdefault(summary.fingerprint, []).append((result, summary))
    return [
        OtherFinding(
            cells=[result for result, _ in group],
            lines=important_lines(group[0][1], run / group[0][0].folder),
            is_hang=group[0][1].kind is FindingKind.HANG,
        )
        for group in alike.values()
    ]


def other_paragraphs(results: list[CellResult], run: Path) -> str:
    """The findings of `others`, as text for a terminal."""
    return "\n\n".join(
        "\n".join([other.head, *(f"    {line}" for line in other.lines)]) for other in others(results, run)
    )


def allowed(results: list[CellResult]) -> str:
    """A line for each finding that a matrix allows, with the cells that have it."""
    alike: dict[str, list[tuple[CellResult, FindingSummary]]] = {}
    for result in results:
        for summary in result.findings:
            if summary.allowed:
                alike.setdefault(summary.fingerprint, []).append((result, summary))
    return "\n".join(
        clean_line(
            f"allowed: {', '.join(result.cell for result, _ in group)}: {group[0][1].title} ({fingerprint})"
        )
        for fingerprint, group in alike.items()
    )
