"""By which times of tests the slices of a run are dealt. They are kept in its run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quizmatrix.core import private
from quizmatrix.core.errors import UsageError, host_error
from quizmatrix.core.json import to_json
from quizmatrix.model.cellid import split_shard
from quizmatrix.model.options import RunRequest
from quizmatrix.model.task import Task
from quizmatrix.runs import directory, rerun

if TYPE_CHECKING:
    from quizmatrix.runs.history.record import History

# In a run directory whose cells are slices.
FILE = "test-seconds.json"

# Seconds that tests took, by architecture and name.
TestSeconds = dict[str, dict[str, float]]


def seconds_for(request: RunRequest, tasks: list[Task], history: History) -> TestSeconds:
    """The times by which the slices among `tasks` are dealt.

    A resumed run goes by its own, and --shard-like names a run. Where single slices are run again, it is the
    last run of the same command that had them; else the history knows how long tests took last. Raises
    UsageError where the named run had no slices, HistoryError where the history cannot be read.
    """
    sliced = [task for task in tasks if task.cell.shard]
    arches = list(dict.fromkeys(task.cell.arch for task in sliced))
    options = request.options
    if options.once.resume is not None:
        return load(directory.find_run(options.once.resume)) or {}
    if (run := options.selection.shard_like) is not None:
        found = load(directory.find_run(run))
        if found is None:
            raise UsageError(f"--shard-like {run}: that run had no slices")
        return found
    if options.once.last_failed or any(split_shard(name)[1] for name in options.selection.only):
        before = _of_runs_before(request, sliced, history)
        if before.keys() >= set(arches):
            return before
    return {arch: history.test_seconds(request.command or [], arch) for arch in arches}


def _of_runs_before(request: RunRequest, sliced: list[Task], history: History) -> TestSeconds:
    """By which times these slices were dealt when they last ran with this command, where they did.

    Raises UsageError where they were dealt in several ways: slices of one are not those of the other.
    """
    history.catch_up()
    latest = history.latest(rerun.kind_of(request))
    found: TestSeconds = {}
    for task in sliced:
        if task.id in latest:
            place, _run, _result = latest[task.id]
            kept = load(place)
            if kept is not None:
                times = kept.get(task.cell.arch, {})
                if found.setdefault(task.cell.arch, times) != times:
                    raise UsageError(
                        f"the slices of {task.cell.arch} were dealt in several ways when they last ran",
                        cause="a slice of the one may lack tests of the other",
                        next_step="Run all of them: leave out --last-failed, and @NofM in --only.",
                    )
    return found


def load(place: Path) -> TestSeconds | None:
    """By which times a run's slices were dealt; None where it had none, or they cannot be read."""
    try:
        return msgspec.json.decode((place / FILE).read_bytes(), type=TestSeconds)
    except (OSError, msgspec.MsgspecError):
        return None


def keep(place: Path, seconds: TestSeconds) -> None:
    """Write the times into a run directory. Raises HostError where that fails."""
    try:
        private.write(place / FILE, to_json(seconds))
    except OSError as error:
        raise host_error(f"write to {place}", error) from error
