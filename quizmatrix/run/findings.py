"""Judges a cell's findings, adds their source lines, and writes them to the cell's folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.json import to_json
from quizmatrix.kernel import artifact
from quizmatrix.model.finding import Finding, FindingSummary
from quizmatrix.model.spec import CellSpec

# The file with the findings, in a cell's folder.
FILE = "findings.json"
# The largest number of findings in results.json.
_MAX_SUMMARIES = 20


async def write_findings(spec: CellSpec, findings: list[Finding]) -> list[FindingSummary]:
    """Write a guest's findings to findings.json, if there are any; return their summaries.

    Raises OSError if the file cannot be written.
    """
    found = spec.limits.tolerance.apply(findings)
    if not found:
        return []
    if (kernel := symbols_of(spec)) is not None:
        from quizmatrix.console import symbols

        found = await symbols.decode(found, kernel, spec.machine.arch.facts.cross_prefix)
    paths.write_atomic(Path(spec.files.folder) / FILE, to_json(found))
    # Fatal findings first, so that they are never left out.
    first = sorted(found, key=lambda finding: not finding.kind.is_fatal)[:_MAX_SUMMARIES]
    return [finding.summary for finding in sorted(first, key=lambda finding: finding.line)]


def symbols_of(spec: CellSpec) -> Path | None:
    """The guest's vmlinux with symbols; None if another kernel was or is being built in its folder."""
    if spec.machine.kernel.symbols is None:
        return None
    kernel = Path(spec.machine.kernel.symbols)
    try:
        is_ours = kernel.with_name(artifact.BUILD_STAMP).read_text() == spec.machine.kernel.key
    except OSError:
        return None
    return kernel if is_ours else None


def load(folder: Path) -> list[Finding]:
    """The findings in a cell's folder; empty if there are none, or the file cannot be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Finding])
    except (OSError, msgspec.MsgspecError):
        return []
