"""Judges a cell's findings, adds their source lines, and writes them to the cell's folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.core import paths
from quizmatrix.core.json import to_json
from quizmatrix.kernel import artifact
from quizmatrix.model.finding import Finding, FindingSummary
from quizmatrix.model.spec import CellSpec

# The findings in a cell's folder.
FILE = "findings.json"
# Those that results.json names.
_MOST_SUMMARIES = 20


async def conclude(spec: CellSpec, watch: ConsoleWatch) -> list[FindingSummary]:
    """Keep what was found on the console of `spec`'s guest, and sum it up.

    Writes findings.json where there is anything. OSError where that fails.
    """
    found = spec.tolerance.apply(watch.findings)
    if not found:
        return []
    if (kernel := _symbols_of(spec)) is not None:
        from quizmatrix.console import symbols

        found = await symbols.decode(found, kernel, spec.arch.facts.cross_prefix)
    paths.write_atomic(Path(spec.folder) / FILE, to_json(found))
    # A fatal one is not left out, however much came before it.
    first = sorted(found, key=lambda finding: not finding.kind.is_fatal)[:_MOST_SUMMARIES]
    return [finding.summary for finding in sorted(first, key=lambda finding: finding.line)]


def _symbols_of(spec: CellSpec) -> Path | None:
    """The guest's kernel with its symbols; None where another is being built, or was, in its place."""
    if spec.symbols is None:
        return None
    kernel = Path(spec.symbols)
    try:
        is_ours = kernel.with_name(artifact.BUILD_STAMP).read_text() == spec.kernel_key
    except OSError:
        return None
    return kernel if is_ours else None


def load(folder: Path) -> list[Finding]:
    """The findings in a cell's folder; empty where there are none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Finding])
    except (OSError, msgspec.MsgspecError):
        return []
