"""Runs the command of --on-finish with the results of a run that has ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.json import to_json
from quizmatrix.core.text import clean_line
from quizmatrix.core.units import format_seconds
from quizmatrix.model.result import RunResults
from quizmatrix.report.progress import tell

# Seconds that the command may take. The run waits for it, and holds its locks until then.
LIMIT = 600.0


def run_on_finish(command: str, results: RunResults, folder: Path, limit: float = LIMIT) -> None:
    """Run the command of --on-finish with results.json as its stdin.

    An error, or a command that takes longer than `limit` seconds, is only printed; it does not change the
    run's exit status. folder: the run directory.
    """
    try:
        status = anyio.run(_run_hook, command, results, folder, limit)
    except (QuizmatrixError, OSError) as error:
        tell(f"--on-finish could not be run: {clean_line(str(error))}")
        return
    if status is None:
        tell(f"--on-finish had not ended after {format_seconds(limit)} and was killed: {clean_line(command)}")
    elif status != 0:
        ended = f"by signal {-status}" if status < 0 else f"with {status}"
        tell(f"--on-finish ended {ended}: {clean_line(command)}")


async def _run_hook(command: str, results: RunResults, folder: Path, limit: float) -> int | None:
    """Run the command with sh; returns its exit status, None where it took too long and was killed."""
    # The results come from memory, so that the command also works when the disk is full.
    with os.fdopen(os.memfd_create("results.json"), "w+b") as told:
        told.write(to_json(results))
        told.flush()
        told.seek(0)
        sys.stderr.flush()
        hook = await process.start(
            ["sh", "-c", command],
            stdin=told,
            output=sys.stderr.fileno(),
            env={
                "QUIZMATRIX_RUN": results.run,
                "QUIZMATRIX_RUN_DIR": str(folder),
                "QUIZMATRIX_EXIT_STATUS": str(results.exit_code),
            },
        )
    status: int | None = None
    try:
        with anyio.move_on_after(limit):
            status = await hook.wait()
    finally:
        with anyio.CancelScope(shield=True):
            if await process.kill(hook):
                await hook.aclose()
    return status
