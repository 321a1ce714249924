"""Runs one night of a job, records how it went, and removes runs that are not to be kept."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import msgspec

from quizmatrix.core import units
from quizmatrix.core.concurrency import Watch
from quizmatrix.core.errors import QuizmatrixError, UsageError
from quizmatrix.core.folders import remove_tree
from quizmatrix.core.text import clean_line
from quizmatrix.matrixrun.run import run as run_matrix
from quizmatrix.model.options import RunRequest, with_values
from quizmatrix.model.outcome import EXIT_NO_VERDICT
from quizmatrix.model.result import RunResults
from quizmatrix.nightly import job as jobs
from quizmatrix.nightly import lock
from quizmatrix.nightly.job import Job, Night
from quizmatrix.report.progress import tell
from quizmatrix.runs import directory, retention
from quizmatrix.runs.history import kept
from quizmatrix.runs.history.kept import RunKind
from quizmatrix.runs.history.record import days_ago
from quizmatrix.runs.rerun import ReadArguments, kind_of

_DAY = 86400.0


def run(name: str, read: ReadArguments, watch: Watch) -> int:
    """Run one night of a job; returns the run's exit status.

    read, watch: see matrixrun.run. Raises UsageError where the last night is still going on.
    """
    job = jobs.load(name)
    os.environ.update(job.environment)
    with lock.held(job):
        began = datetime.now(UTC)
        night = Night(started=began.isoformat(timespec="milliseconds"))
        jobs.keep_night(job, night)
        status, error = EXIT_NO_VERDICT, ""
        kind: RunKind | None = None
        try:
            request = _in_its_folder(job, read)
            kind = kind_of(request)
            status = run_matrix(request, read, watch)
        except QuizmatrixError as failure:
            error = str(failure)
            raise
        finally:
            made = _newest(kind, began) if kind is not None else None
            night = msgspec.structs.replace(
                night,
                finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
                exit_code=status,
                run=made.run if made else "",
                totals=made.totals if made else {},
                error=error,
            )
            try:
                jobs.keep_night(job, night)
            except QuizmatrixError as failure:
                tell(clean_line(str(failure)))  # this does not change the exit status
        _remove_old(job, kind)
    return status


def _in_its_folder(job: Job, read: ReadArguments) -> RunRequest:
    """Change to the folder where a job was installed; returns the job's request."""
    try:
        os.chdir(job.folder)
    except OSError as error:
        raise UsageError(
            f"the nightly run {job.name} cannot go to {job.folder}, where it was installed",
            cause=error.strerror or str(error),
            next_step=f"Make it again, or: quizmatrix nightly remove {job.name}",
        ) from error
    # The file of an earlier quizmatrix has only the arguments.
    options = job.options if job.options is not None else read(job.arguments)
    return RunRequest(
        options=with_values(options, {"quiet": True}),
        command=job.command,
        arguments=[*job.arguments, "--quiet"],
        unattended=True,
    )


def _newest(kind: RunKind, since: datetime) -> RunResults | None:
    """The newest run of this kind that began since then."""
    for _, results in directory.list_runs():
        if results is not None and datetime.fromisoformat(results.started) >= since:
            if kept.kind_of(results) == kind:
                return results
        elif results is not None:
            break
    return None


def _remove_old(job: Job, kind: RunKind) -> None:
    """Remove the job's runs that are not to be kept, as `runs prune` does, and no others.

    An error is only printed; it does not change the run's exit status.
    """
    if job.keep is None and job.older_than is None:
        return
    before = days_ago(units.parse_duration(job.older_than) / _DAY) if job.older_than else None
    for old in retention.old_runs(job.keep or 1, before, lambda results: kept.kind_of(results) == kind):
        try:
            remove_tree(old.folder)
        except QuizmatrixError as error:
            tell(clean_line(str(error)))
