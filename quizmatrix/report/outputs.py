"""Writes the report files that options name (--junit, ...), and the job summary on GitHub."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quizmatrix.core import paths, streams
from quizmatrix.core.errors import HostError, UsageError, host_error
from quizmatrix.model.options import ResultOptions
from quizmatrix.report.formats import Format, render

if TYPE_CHECKING:
    from quizmatrix.report.formats.source import ReportSource

STDOUT = "-"
# The variable in which GitHub's runner names the file for a job step's Markdown.
_SUMMARY = "GITHUB_STEP_SUMMARY"


def asked(options: ResultOptions) -> dict[Format, str]:
    """The reports that the options ask for, each with its file."""
    return {form: getattr(options, form) for form in Format if getattr(options, form) is not None}


def check(options: ResultOptions) -> None:
    """Raise UsageError where a report cannot be written; called before anything is run."""
    targets = asked(options)
    for form, target in targets.items():
        if target != STDOUT and not os.access(Path(target).absolute().parent, os.W_OK):
            raise UsageError(
                f"--{form} {target} cannot be written", next_step="Name a file in a folder of yours."
            )
    to_stdout = [f"--{form}" for form, target in targets.items() if target == STDOUT]
    if len(to_stdout) > 1:
        raise UsageError(
            f"{' and '.join(to_stdout)} cannot share stdout",
            next_step="Name a file for all but one of them.",
        )


def use_stdout(options: ResultOptions) -> bool:
    """Whether a report is written to stdout. Then nothing else may be written there."""
    return STDOUT in asked(options).values()


def are_wanted(options: ResultOptions) -> bool:
    """Whether any report is to be written, the summary on GitHub included."""
    return bool(asked(options) or os.environ.get(_SUMMARY))


def write(options: ResultOptions, source: ReportSource) -> list[HostError]:
    """Write the reports that `options` asks for. Errors are returned; they do not change the exit status."""
    errors = []
    for form, target in asked(options).items():
        errors.append(_tried(target, partial(_write_report, form, target, source)))
    return [error for error in errors if error is not None]


def add_to_job_summary(source: ReportSource) -> HostError | None:
    """On GitHub, add the run to the summary of the job's step. Returns an error instead of raising it."""
    summary = os.environ.get(_SUMMARY)
    if not summary:
        return None
    from quizmatrix.report.formats import markdown

    def add() -> None:
        path = Path(summary)
        # GitHub shows nothing if all commands of a step together write more than its limit.
        taken = path.stat().st_size if path.exists() else 0
        with path.open("ab") as file:
            file.writelines([b"\n", *markdown.render(source, markdown.SUMMARY_BYTES - taken - 1)])

    return _tried(f"{summary} (${_SUMMARY})", add)


def _tried(name: str, write: Callable[[], None]) -> HostError | None:
    try:
        write()
    except BrokenPipeError:
        raise
    except OSError as error:
        return host_error(f"write {name}", error)
    except Exception as error:
        # A bug in a report must not change the run's exit status.
        return HostError(f"cannot write {name}", cause=f"internal error: {error!r}")
    return None


def _write_report(form: Format, target: str, source: ReportSource) -> None:
    parts = render(form, source)
    if target == STDOUT:
        streams.copy(parts)
        return
    path = Path(target).resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as file:  # a FIFO or device must not be replaced by a file
            file.writelines(parts)
    else:
        # Others may have to read it: a CI job that collects reports, a web server.
        paths.write_atomic(path, parts, mode=paths.new_file_mode())
