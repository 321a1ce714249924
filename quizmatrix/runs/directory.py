"""Run directories: written during the run, replaced atomically, and readable after a run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
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
# In a cell's folder: its part of RESULTS.
RESULT = "result.json"
LATEST = "latest"


def runs_dir() -> Path:
    """Where runs are kept unless --output says otherwise."""
    return paths.state_dir() / "runs"


class RunDirectory:
    """The directory of a run that is going on."""

    def __init__(self, folder: Path, results: RunResults) -> None:
        """results: as far as they are known."""
        self.folder = folder
        self.results = results
        self._error: OSError | None = None
        self._lock: int | None = None

    @property
    def error(self) -> HostError | None:
        """What kept the results from being written, if anything did."""
        return host_error("write the results", self._error) if self._error else None

    def cell_folder(self, name: str) -> Path:
        """A new, empty folder for an attempt at a cell; earlier attempts stay as NAME.attempt-N."""
        folder = self.folder / name
        try:
            _put_aside(folder)
            # A guest may leave set-user-ID programs of root's: nobody else gets at them.
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise host_error(f"make the folder {folder}", error) from error
        return folder

    def write_event(self, event: EventLine) -> None:
        """Add a line to events.jsonl."""
        if isinstance(event, CellConsole):
            return
        line = encode({"time": _now()} | msgspec.to_builtins(event))
        if self._error:
            line = b"\n" + line  # the last one may have been cut off
        with self._note_error(), private.append_to(self.folder / EVENTS) as file:
            file.write(line + b"\n")

    def write_cell(self, folder_name: str, result: CellResult) -> None:
        """Keep one cell's verdict: in its own folder and in results.json."""
        cells = [cell for cell in self.results.cells if cell.cell != result.cell]
        self._replace(cells=[*cells, result])
        with self._note_error():
            folder = private.folder(self.folder / folder_name)
            private.write(folder / RESULT, to_json(result))

    def hold(self) -> None:
        """Let others see that this directory is being written, until `finish` or this process's end.

        UsageError where another process writes it.
        """
        lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        # A file system without such locks: then the age of the results has to tell.
        with contextlib.suppress(OSError):
            if not paths.take_lock(lock):
                os.close(lock)
                raise UsageError(
                    f"the run {self.results.run} is still going on", next_step="quizmatrix runs list"
                )
        self._lock = lock

    def resume(self, done: list[CellResult], again: Sequence[str]) -> None:
        """Go on with a run that was cut short.

        done: the results that stay. again: the ids of what will have new ones. Raises UsageError where it is
        still going on, HostError where it cannot be written.
        """
        try:
            self.hold()
            private.close_to_others(self.folder / EVENTS)
            with private.append_to(self.folder / EVENTS) as file:
                file.write(b"\n")  # what was killed may have left half a line
        except OSError as error:
            raise host_error(f"write to {self.folder}", error) from error
        self.write_event(RunResumed(cells=list(again)))
        self._replace(cells=done, finished=None, exit_code=None)

    def finish(self, cells: list[CellResult], exit_code: int) -> None:
        """Write the whole: the cells in the matrix's order, and how the run ended."""
        finished = _now()
        self._replace(cells=cells, finished=finished, exit_code=exit_code)
        self.write_event(RunFinished(finished=finished, exit_code=exit_code))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def revise(self, result: CellResult) -> None:
        """Keep what has become known of a cell behind its verdict."""
        self.write_event(CellFinished(result=result))
        self.write_cell(result.folder, result)

    def refer_to(self, result: CellResult, folder: Path) -> None:
        """Take over a cell that is not run again, with a link to its folder in the run it was run in."""
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
        """A disk that fills up costs the record, not the run: it is said at the end."""
        try:
            yield
        except OSError as error:
            self._error = self._error or error


def check_output(output: Path) -> None:
    """UsageError where a folder that is to be a run directory holds something."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(
            f"{output} exists and is not empty",
            next_step="Name a new folder for --output: results are never written over others.",
        )


def check_not_going_on(folder: Path) -> None:
    """UsageError where another process writes this run directory."""
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
    """A new run directory: `output`, or one of its own under the user's state directory.

    command, handoff: what is run, one of the two. tasks: the ids of what will have results. matrix, current
    (the current folder), arguments, options: see RunResults.

    Raises UsageError where `output` holds something, HostError where it cannot be written.
    """
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
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
    """Keep what an earlier attempt wrote, where it wrote anything but its verdict."""
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


# Seconds after which a run that has not finished, and says nothing more, is not going on any more.
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
    except OSError:  # no locks here
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
    """Every kept run, the newest first, with its results (None where they cannot be read).

    besides: runs that are not looked at.
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
    """The directory of a run: its id, the unique beginning of one, `latest`, or a path.

    Raises UsageError where there is none, or more than one.
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
    """What `find_run` finds a run directory by: its id, or its path where --output has put it elsewhere."""
    return folder.name if folder.parent == runs_dir() else str(folder.absolute())


def load(folder: Path) -> RunResults:
    """The results in a run directory; UsageError where there are none, DamagedError where unreadable.

    Where results.json is lost, the events tell the same; of a run that was killed they may tell more.
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
