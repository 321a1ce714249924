"""Runs one job by hand: `python -m quizmatrix.run JOB.json [FOLDER]`.

JOB.json is what every cell of a run directory has as job.json. FOLDER, for the results, is new or empty; by
default it is a new one below the current folder. The command's output comes to stdout and stderr, the result
is in FOLDER/result.json, and the exit status is the command's, or 125 where it did not come to its end.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import anyio

from quizmatrix.core import paths, store, uses
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError, UsageError, host_error
from quizmatrix.core.json import to_json
from quizmatrix.core.passon import pass_on_to
from quizmatrix.model.cellid import folder_name
from quizmatrix.model.job import CellJob
from quizmatrix.model.outcome import EXIT_INTERRUPTED, EXIT_NO_VERDICT
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import OWN_STDIN
from quizmatrix.run.job import run_job, with_secrets
from quizmatrix.run.observer import Observer

RESULT = "result.json"


def main(argv: list[str]) -> int:
    """What the module says; returns the exit status."""
    if len(argv) not in (1, 2) or argv[0].startswith("-"):
        print((__doc__ or "").strip(), file=sys.stderr)
        return EXIT_NO_VERDICT
    try:
        job = _read(Path(argv[0]))
        folder = _folder(job, argv[1] if len(argv) > 1 else None)
        with uses.using_cache(_tell):
            result = anyio.run(_run, job, folder)
        paths.write_atomic(folder / RESULT, to_json(result))
    except QuizmatrixError as error:
        _tell(error.render())
        return EXIT_NO_VERDICT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if result.detail:
        _tell(f"{result.cell}: {result.outcome}: {result.detail}")
    _tell(f"{result.outcome}, in {folder}")
    return EXIT_NO_VERDICT if result.exit_code is None else result.exit_code


def _tell(text: str) -> None:
    print(f"quizmatrix: {text}", file=sys.stderr, flush=True)


def _read(path: Path) -> CellJob:
    try:
        job = CellJob.decode(path.read_bytes())
    except OSError as error:
        raise host_error(f"read {path}", error) from error
    if job.command.session is not None or job.command.stdin == OWN_STDIN:
        raise UsageError(
            f"{path} wants this terminal or its stdin",
            cause="a job that is run by hand has neither",
            next_step="`quizmatrix run` repeats it: reproduce.sh beside it has the command line.",
        )
    return with_secrets(job, dict(os.environ))


def _folder(job: CellJob, asked: str | None) -> Path:
    try:
        if asked is None:
            return Path(tempfile.mkdtemp(prefix=f"{folder_name(job.labels.cell)}.", dir=".")).absolute()
        folder = Path(asked).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", next_step="Name a new folder for the results.")
    except OSError as error:
        raise host_error("make the folder for the results", error) from error
    return folder


async def _run(job: CellJob, folder: Path) -> CellResult:
    held = uses.Uses()
    for name in job.artifacts:
        await held.hold(store.path_of(name))
    async with task_group() as group:
        stop = group.cancel_scope.cancel
        observer = Observer(
            stdout=pass_on_to(sys.stdout.fileno(), stop),
            stderr=pass_on_to(sys.stderr.fileno(), stop),
            note=_tell,
        )
        _, result = await run_job(job, folder=folder, observer=observer)
    return result


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
