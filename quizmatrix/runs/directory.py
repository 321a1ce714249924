"""Run directories: written during the run, replaced atomically, and readable after a run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quizmatrix.core import paths, private
from quizmatrix.core.errors import DamagedError, HostError, QuizmatrixError, UsageError, host_error
from quizmatrix.core.json import encode, to_json
from quizmatrix.model.events import CellConsole, CellFinished, EventLine, RunFinished, RunResumed, RunStarted
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.options import RunOptions
from quizmatrix.model.result import CellResult, RunResults, decode_results
from quizmatrix.runs.replay import replay

RESULTS = "results.json"
EVENTS = "events.jsonl"
# In a cell's folder: the cell's own part of RESULTS.
RESULT = "result.json"
LATEST = "latest"


def runs_dir() -> Path:
    """Where runs are kept unless --output says otherwise."""
    return paths.state_dir() / "runs"


class RunDirectory:
    """The directory of a run that is going on. An error in writing does not end the run: see `error`."""

    def __init__(self, folder: Path, results: RunResults) -> None:
        """results: those known so far."""
        self.folder = folder
        self.results = results
        self._error: OSError | None = None
        self._lock: int | None = None

    @property
    def error(self) -> HostError | None:
        """The first error in writing the results, if any."""
        return host_error("write the results", self._error) if self._error else None

    def cell_folder(self, name: str) -> Path:
        """Make a new, empty folder for an attempt at a cell; earlier attempts stay as NAME.attempt-N."""
        folder = self.folder / name
        try:
            _put_aside(folder)
            # A guest may leave set-user-ID programs of root, which other users must not reach.
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise host_error(f"make the folder {folder}", error) from error
        return folder

    def further_folder(self, name: str, guest: str) -> Path:
        """Make a new folder for a further guest of a cell, in the cell's folder NAME."""
        folder = self.folder / name / guest
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise host_error(f"make the folder {folder}", error) from error
        return folder

    def write_event(self, event: EventLine) -> None:
        """Add a line to events.jsonl."""
        if isinstance(event, CellConsole):
            return
        line = encode({"time": _now()} | msgspec.to_builtins(event))
        if self._error:
            line = b"\n" + line  # the line before may be incomplete
        with self._note_error(), private.append_to(self.folder / EVENTS) as file:
            file.write(line + b"\n")

    def write_cell(self, folder_name: str, result: CellResult) -> None:
        """Write one cell's result to its own folder and to results.json."""
        cells = [cell for cell in self.results.cells if cell.cell != result.cell]
        self._replace(cells=[*cells, result])
        with self._note_error():
            folder = private.folder(self.folder / folder_name)
            private.write(folder / RESULT, to_json(result))

    def hold(self) -> None:
        """Lock this directory until `finish` or this process's end, so that others see it is being written.

        Raises UsageError where another process writes it.
        """
        lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        # On a file system without locks, is_going_on goes by the age of the events.
        with contextlib.suppress(OSError):
            if not paths.take_lock(lock):
                os.close(lock)
                raise UsageError(
                    f"the run {self.results.run} is still going on", next_step="quizmatrix runs list"
                )
        self._lock = lock

    def resume(self, done: list[CellResult], again: Sequence[str]) -> None:
        """Continue a run that was cut short.

        done: the results that stay. again: the ids of the tasks that are run again. Raises UsageError where
        the run is still going on, HostError where the directory cannot be written.
        """
        try:
            self.hold()
            private.close_to_others(self.folder / EVENTS)
            with private.append_to(self.folder / EVENTS) as file:
                file.write(b"\n")  # the last line may be incomplete
        except OSError as error:
            raise host_error(f"write to {self.folder}", error) from error
        self.write_event(RunResumed(cells=list(again)))
        self._replace(cells=done, finished=None, exit_code=None)

    def finish(self, cells: list[CellResult], exit_code: int) -> None:
        """Write the final results and release the lock. cells: in the matrix's order."""
        finished = _now()
        self._replace(cells=cells, finished=finished, exit_code=exit_code)
        self.write_event(RunFinished(finished=finished, exit_code=exit_code))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def revise(self, result: CellResult) -> None:
        """Write a cell's result again, with facts that became known after its verdict."""
        self.write_event(CellFinished(result=result))
        self.write_cell(result.folder, result)

    def refer_to(self, result: CellResult, folder: Path) -> None:
        """Add the result of a cell that is not run again, with a symlink to its folder in its own run."""
        with self._note_error():
            (self.folder / result.folder).symlink_to(folder)
        self.write_event(CellFinished(result=result))
        self._replace(cells=[*self.results.cells, result])

    def _replace(self, **changed: object) -> None:
        self.results = msgspec.structs.replace(self.results, **changed)
        totals: dict[str, int] = {}
        for cell in self.results.cells:
            totals[cell.outcome] = totals.get(cell.outcome, 0) + 1
        self.results = msgspec.structs.replace(self.results, totals=totals)
        with self._note_error():
            private.write(self.folder / RESULTS, to_json(self.results))

    @contextlib.contextmanager
    def _note_error(self) -> Iterator[None]:
        """Keep the first error (a full disk, say) for `error`, so that it does not end the run."""
        try:
            yield
        except OSError as error:
            self._error = self._error or error


def check_output(output: Path) -> None:
    """Raise UsageError where a folder for --output exists and is not empty."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"{output} exists and is not empty",
            next_step="Name a new folder for --output: results are never written over others.",
        )


def check_not_going_on(folder: Path) -> None:
    """Raise UsageError where another process writes this run directory."""
    if is_going_on(folder):
        raise UsageError(f"the run {folder.name} is still going on", next_step="quizmatrix runs list")


def create(
    output: Path | None,
    command: list[str],
    handoff: Handoff | None = None,
    *,
    tasks: Sequence[str] = (),
    matrix: str = "",
    current: str = "",
    arguments: Sequence[str] = (),
    options: RunOptions | None = None,
) -> RunDirectory:
    """Make a run directory: `output`, or a new one in the user's state directory.

    command, handoff: what is run; one of the two is set. tasks: the ids of all tasks. matrix, current (the
    current folder), arguments, options: see RunResults.

    Raises UsageError where `output` is not empty, HostError where the directory cannot be written.
    """
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"
    folder = (output or runs_dir() / run).absolute()
    if output is not None:
        check_output(output)
    results = RunResults(
        run=run,
        command=command,
        handoff=handoff,
        matrix=matrix,
        folder=current,
        arguments=list(arguments),
        options=options,
        started=_now(),
    )
    made = RunDirectory(folder, results)
    try:
        if output is None:
            private.folder(private.state_dir() / "runs")
            folder.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        made.hold()
        made.write_event(RunStarted.of(results, tasks))
        private.write(folder / RESULTS, to_json(made.results))
        if output is None:
            _point_latest_to(folder)
    except OSError as error:
        if output is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise host_error("make the run directory", error) from error
    return made


def _put_aside(folder: Path) -> None:
    """Rename an earlier attempt's folder to NAME.attempt-N; one that holds only a verdict is removed."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        if {path.name for path in folder.iterdir()} <= {RESULT}:
            shutil.rmtree(folder)
            return
        number = 1
        while (aside := folder.with_name(f"{folder.name}.attempt-{number}")).exists():
            number += 1
        folder.rename(aside)


# Where locks do not work: a run without a new event for so many seconds counts as ended.
_SILENCE = 3600.0


def is_going_on(folder: Path) -> bool:
    """Whether a run directory is being written."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        newest = max((path.stat().st_mtime for path in (folder, folder / EVENTS) if path.exists()), default=0)
        return time.time() - newest < _SILENCE
    finally:
        os.close(handle)
    return False


def _point_latest_to(folder: Path) -> None:
    new = folder.parent / f".{LATEST}.{folder.name}"
    new.symlink_to(folder.name)
    new.replace(folder.parent / LATEST)


def list_runs(*, besides: Collection[str] = ()) -> list[tuple[Path, RunResults | None]]:
    """All kept runs, the newest first, each with its results (None where they cannot be read).

    besides: the ids of runs to leave out.
    """
    found: list[tuple[Path, RunResults | None]] = []
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(runs_dir().iterdir(), reverse=True):
            if folder.is_symlink() or not folder.is_dir() or folder.name.startswith("."):
                continue
            if folder.name in besides:
                continue
            try:
                found.append((folder, load(folder)))
            except QuizmatrixError:
                found.append((folder, None))
    return found


def find_run(name: str) -> Path:
    """The directory of a run. name: the run's id, the beginning of only one id, `latest`, or a path.

    Raises UsageError where no run, or more than one, has this name.
    """
    if "/" in name or (Path(name) / RESULTS).is_file():
        return Path(name)
    if name == LATEST:
        matches = [runs_dir() / LATEST] if (runs_dir() / LATEST).exists() else []
    else:
        matches = [folder for folder, _ in list_runs() if folder.name.startswith(name)]
    if len(matches) == 1:
        return matches[0].resolve()
    raise UsageError(
        f"no run `{name}`" if not matches else f"`{name}` begins the names of several runs",
        next_step="quizmatrix runs list",
    )


def name_of(folder: Path) -> str:
    """The name by which `find_run` finds a run directory: its id, or its path where --output was given."""
    return folder.name if folder.parent == runs_dir() else str(folder.absolute())


def load(folder: Path) -> RunResults:
    """The results in a run directory.

    They come from results.json. Where it is lost, or the run was killed, they are read from the events, which
    hold the same and may hold more. Raises UsageError where the folder is no run directory, DamagedError
    where its files cannot be read.
    """
    path = folder / RESULTS
    try:
        results = decode_results(path.read_bytes(), str(path))
    except (OSError, DamagedError) as error:
        with contextlib.suppress(QuizmatrixError):
            return replay(folder / EVENTS).results
        if isinstance(error, OSError):
            raise UsageError(f"{folder} is no run directory", cause=error.strerror or str(error)) from error
        raise
    if results.finished is None:
        with contextlib.suppress(QuizmatrixError):
            told = replay(folder / EVENTS).results
            return told if len(told.cells) >= len(results.cells) else results
    return results


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
