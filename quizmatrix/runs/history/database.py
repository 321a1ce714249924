"""The SQLite file of the history: opens it, updates its tables, and moves it aside if it is damaged."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from quizmatrix.core import filesystem, paths, private
from quizmatrix.core.errors import HistoryError, host_error

FILE = "history.sqlite"
# Suffixes of the files that SQLite keeps beside an open database (sqlite.org/tempfiles.html).
COMPANIONS = ("-wal", "-shm", "-journal")
# The directory that SQLite uses as a lock where the file system has no locks.
DOT_LOCK = f"{FILE}.lock"
LOCK = "history.lock"

# Seconds to wait while another process writes.
_PATIENCE = 10.0

# Each entry upgrades the file to the next version; their number is the current version (user_version).
_MIGRATIONS = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, place TEXT NOT NULL, command TEXT NOT NULL, matrix TEXT NOT NULL,
        folder TEXT NOT NULL, arguments TEXT NOT NULL, started TEXT NOT NULL, finished TEXT, exit_code INTEGER
    );
    CREATE TABLE cells (
        key INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        cell TEXT NOT NULL, kernel TEXT NOT NULL, release TEXT, arch TEXT NOT NULL, variant TEXT,
        outcome TEXT NOT NULL, expected TEXT NOT NULL, exit_code INTEGER, detail TEXT NOT NULL,
        inputs TEXT NOT NULL, earlier TEXT NOT NULL, seconds REAL, result TEXT NOT NULL,
        UNIQUE (run, cell)
    );
    CREATE INDEX cells_by_cell ON cells (cell, inputs);
    CREATE TABLE names (key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE subtests (
        cell INTEGER NOT NULL REFERENCES cells (key) ON DELETE CASCADE,
        name INTEGER NOT NULL REFERENCES names (key), outcome TEXT NOT NULL, failed_before INTEGER NOT NULL,
        PRIMARY KEY (cell, name)
    ) WITHOUT ROWID;
    CREATE TABLE findings (
        cell INTEGER NOT NULL REFERENCES cells (key) ON DELETE CASCADE,
        fingerprint TEXT NOT NULL, title TEXT NOT NULL, PRIMARY KEY (cell, fingerprint)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE durations (
        program TEXT NOT NULL, arch TEXT NOT NULL, name INTEGER NOT NULL REFERENCES names (key),
        seconds REAL NOT NULL, started TEXT NOT NULL, PRIMARY KEY (program, arch, name)
    ) WITHOUT ROWID;
    """,
)
VERSION = len(_MIGRATIONS)
# The tables that each entry of _MIGRATIONS adds.
_TABLES = ({"runs", "cells", "names", "subtests", "findings"}, {"durations"})

# SQLite's codes for a file that is no database or is damaged (sqlite.org/rescode.html).
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class DamagedHistoryError(Exception):
    """The history's file is damaged. The caller moves it aside and makes a new one."""


def path() -> Path:
    """The path of the history's file."""
    return paths.state_dir() / FILE


@contextlib.contextmanager
def connected() -> Iterator[sqlite3.Connection]:
    """A connection to the history, with its tables made or upgraded.

    Raises HistoryError where the file cannot be opened or is a newer quizmatrix's, DamagedHistoryError where
    it is damaged.
    """
    try:
        private.state_dir()
        for own in (path(), path().with_name(LOCK)):
            with contextlib.suppress(OSError):  # SQLite reports the error in more detail
                # SQLite gives the mode of the file to the files beside it.
                private.append_to(own).close()
        connection = _open()
    except OSError as error:
        raise _of_host("write the history", error) from error
    except sqlite3.Error as error:
        raise _translated(error) from error
    try:
        with contextlib.closing(connection):
            _bring_up_to_date(connection)
            connection.execute("PRAGMA foreign_keys = ON")
            # In WAL mode a crash of the machine may lose the last run's record, but never damages the file.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
    except sqlite3.Error as error:
        raise _translated(error) from error


def _open() -> sqlite3.Connection:
    lock = path().with_name(LOCK)
    lock.touch()
    if filesystem.has_locks(lock):
        connection = sqlite3.connect(path(), timeout=_PATIENCE, isolation_level=None)
        if filesystem.is_remote(paths.state_dir()):
            # WAL needs shared memory, which processes on different hosts do not have (sqlite.org/wal.html).
            _leave_wal(connection)
        return connection
    # For file systems without locks, SQLite can use a directory beside the file (sqlite.org/vfs.html).
    connection = sqlite3.connect(
        f"{path().as_uri()}?vfs=unix-dotfile", uri=True, timeout=_PATIENCE, isolation_level=None
    )
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    _leave_wal(connection)
    connection.execute("PRAGMA locking_mode = NORMAL")
    return connection


def _leave_wal(connection: sqlite3.Connection) -> None:
    """Switch the file from WAL to a rollback journal; another host may have made it in WAL mode."""
    connection.execute("PRAGMA journal_mode = DELETE")


def _takes_wal() -> bool:
    return not filesystem.is_remote(paths.state_dir()) and filesystem.has_locks(path().with_name(LOCK))


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction: all that the block writes is kept, or nothing. Other writers wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the error may have rolled it back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def move_aside() -> Path | None:
    """Rename a damaged file. Returns its new path, or None where another process has renamed it already.

    Raises HistoryError where it cannot be renamed.
    """
    with locked():
        if not _is_damaged():
            return None
        aside = path().with_name(f"{FILE}.corrupt-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        try:
            path().rename(aside)
            for end in COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    path().with_name(FILE + end).rename(aside.with_name(aside.name + end))
        except OSError as error:
            raise _of_host("move the damaged history aside", error) from error
        return aside


def _is_damaged() -> bool:
    try:
        with contextlib.closing(_open()) as connection:
            _check_tables(connection)
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",))
    except DamagedHistoryError:
        return True
    except sqlite3.Error as error:
        return isinstance(_translated(error), DamagedHistoryError)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    if _version(connection) == VERSION:
        _check_tables(connection)
        return
    # Without the lock two processes could both make the tables; and SQLite does not wait when it switches to
    # WAL.
    with locked():
        _check_tables(connection)
        if _takes_wal():
            connection.execute("PRAGMA journal_mode = WAL")
        with writing(connection):
            for migration in _MIGRATIONS[_version(connection) :]:
                for statement in migration.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    """The version of the file, 0 for a new one. Raises HistoryError where a newer quizmatrix made it."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise HistoryError(
            f"the history {path()} is of a newer quizmatrix, and is left alone",
            cause=f"its version is {version}, this quizmatrix knows {VERSION}",
            next_step="Upgrade this one, or give it a folder of its own with QUIZMATRIX_STATE_DIR.",
        )
    return version


def _check_tables(connection: sqlite3.Connection) -> None:
    """Raise DamagedHistoryError where the file lacks tables, or has tables but no version."""
    version = _version(connection)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables.issuperset(set().union(*_TABLES[:version])) or (not version and tables):
        raise DamagedHistoryError("it has not the tables of a history")


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the history's lock. Raises HistoryError where another process holds it longer than _PATIENCE."""
    lock = path().with_name(LOCK)
    try:
        file = paths.open_locked(lock, _PATIENCE)
    except OSError as error:
        raise _of_host("write the history", error) from error
    if file is None:
        raise HistoryError(f"another process holds {lock}")
    with file:
        yield


def _of_host(action: str, error: OSError) -> HistoryError:
    said = host_error(action, error)
    return HistoryError(said.fact, cause=said.cause, next_step=said.next_step)


def _translated(error: sqlite3.Error) -> Exception:
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(_DAMAGE):
        return DamagedHistoryError(str(error))
    next_step = ""
    if name.startswith("SQLITE_FULL"):
        next_step = "Free some space: `quizmatrix runs prune` removes old runs, `quizmatrix clean` the cache."
    elif name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
        next_step = "Make it writable, or name another folder with QUIZMATRIX_STATE_DIR."
    elif name.startswith("SQLITE_BUSY") and (left := path().with_name(DOT_LOCK)).exists():
        next_step = f"Another process writes it; if none does, one was killed: rmdir {left}"
    elif name.startswith(("SQLITE_IOERR", "SQLITE_PROTOCOL")):
        next_step = "Name a folder on a disk of this host with QUIZMATRIX_STATE_DIR."
    return HistoryError(f"cannot use the history {path()}", cause=str(error), next_step=next_step)
