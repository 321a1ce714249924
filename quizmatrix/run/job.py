"""Runs a job on this host: makes its specification, keeps the job beside the results, and boots the guest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.errors import UsageError, host_error
from quizmatrix.model.job import CellJob
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Disk
from quizmatrix.run import accelerator
from quizmatrix.run.accelerator import Answer
from quizmatrix.run.cell import run_cell
from quizmatrix.run.observer import NOBODY, Observer
from quizmatrix.run.place import specification

# In a cell's folder: the job, without the values of variables that are passed on.
JOB = "job.json"

# Finds the accelerator of a job's guest.
FindOut = Callable[[CellJob], Awaitable[Answer]]
RunCell = Callable[[CellSpec, Observer], Awaitable[CellResult]]


async def run_job(
    job: CellJob,
    *,
    folder: Path,
    disks: Sequence[Disk] = (),
    observer: Observer = NOBODY,
    find_out: FindOut = accelerator.find_out,
    run: RunCell = run_cell,
) -> tuple[CellSpec, CellResult]:
    """Make one attempt at a job: returns what it was run from, and its result.

    folder: for the results; it exists and is empty, but for the disks that cells hand on (disks). find_out,
    run: see their types.
    Raises UnpreparedError if a profile cannot be set up, HostError if this host cannot do its part.
    """
    answer = await find_out(job)
    spec = await specification(job, answer.accelerator, folder=folder, disks=disks)
    _keep(job, folder)
    await observer.specified(spec, answer.why)
    return spec, await run(spec, observer)


def _keep(job: CellJob, folder: Path) -> None:
    try:
        paths.write_atomic(folder / JOB, without_secrets(job).encode())
    except OSError as error:
        raise host_error(f"write to {folder}", error) from error


def without_secrets(job: CellJob) -> CellJob:
    """The job without the values of variables that are passed on, which are never stored."""
    command = job.command
    kept = {name: value for name, value in command.environment.items() if name not in command.passed_on}
    return msgspec.structs.replace(job, command=msgspec.structs.replace(command, environment=kept))


def with_secrets(job: CellJob, environment: dict[str, str]) -> CellJob:
    """The job with the values that such variables have in this environment. UsageError if one is not set."""
    command = job.command
    missing = [name for name in command.passed_on if name not in {**environment, **command.environment}]
    if missing:
        raise UsageError(
            f"the job passes {', '.join(missing)} on, whose value is not stored",
            next_step=f"Export it: {' '.join(f'{name}=...' for name in missing)}",
        )
    passed = {name: environment[name] for name in command.passed_on if name not in command.environment}
    changed = msgspec.structs.replace(command, environment=command.environment | passed)
    return msgspec.structs.replace(job, command=changed)
