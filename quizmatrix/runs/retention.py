"""Finds the run directories that may be removed, by number and age. Those still needed stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quizmatrix.model.result import RunResults
from quizmatrix.runs import directory

# The names of run directories (directory.create).
_RUN = re.compile(r"(\d{8}-\d{6})-[0-9a-f]{4}")

# A run may need so many seconds from its start until its directory is locked.
_JUST_BEGUN = 60.0


class OldRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run directory that may be removed. started: when its run began."""

    folder: Path
    started: datetime


def old_runs(
    keep: int, before: datetime | None, among: Callable[[RunResults], bool] | None = None
) -> list[OldRun]:
    """The run directories that may be removed: all but the newest `keep`.

    before: only runs that began before it. among: which runs are counted and may be removed; by default all,
    including those whose results cannot be read. Never included are the run that `latest` points to, a run
    that is going on, a run whose results a remaining run refers to (--last-failed), and folders that are not
    named like a run.
    """
    dated = [(folder, results, _started(folder)) for folder, results in directory.list_runs()]
    runs = [(folder, results, started) for folder, results, started in dated if started is not None]
    chosen = [one for one in runs if among is None or (one[1] is not None and among(one[1]))]
    latest = (directory.runs_dir() / directory.LATEST).resolve()
    doomed = [
        OldRun(folder=folder, started=started)
        for number, (folder, results, started) in enumerate(chosen)
        if number >= max(keep, 1)
        and (before is None or started < before)
        and folder.resolve() != latest
        and not _is_going_on(folder, results, started)
    ]
    going = {old.folder for old in doomed}
    needed = {
        result.earlier
        for folder, results, _ in runs
        if results is not None and folder not in going
        for result in results.cells
    }
    return [old for old in doomed if old.folder.name not in needed]


def _started(folder: Path) -> datetime | None:
    match = _RUN.fullmatch(folder.name)
    try:
        return datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def _is_going_on(folder: Path, results: RunResults | None, started: datetime) -> bool:
    if results is not None and results.finished is not None:
        return False
    return directory.is_going_on(folder) or (datetime.now(UTC) - started).total_seconds() < _JUST_BEGUN
