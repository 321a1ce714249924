"""Locks a nightly job so that only one run of it goes on; the lock ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quizmatrix.core import paths, private
from quizmatrix.core.errors import UsageError, host_error
from quizmatrix.nightly.job import Job


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that runs a job. since: ISO 8601 in UTC."""

    pid: int = 0
    since: str = ""

    @property
    def words(self) -> str:
        """`process 4711, since 2026-11-25 02:00`, in local time."""
        since = datetime.fromisoformat(self.since).astimezone() if self.since else None
        return f"process {self.pid}" + (f", since {since:%Y-%m-%d %H:%M}" if since else "")


def _path(job: Job) -> Path:
    return job.state / "nightly" / f"{job.name}.lock"


@contextlib.contextmanager
def held(job: Job) -> Iterator[None]:
    """Hold a job's lock. Raises UsageError where another process holds it, HostError where it cannot be made.

    The lock itself is flock(2), which ends with the process. The text in the file is only shown to people.
    """
    path = _path(job)
    try:
        private.folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, private.FILE_MODE)
    except OSError as error:
        raise host_error("lock the nightly run", error) from error
    try:
        try:
            is_ours = paths.take_lock(handle)
        except OSError as error:
            raise host_error(f"lock {path}", error) from error
        if not is_ours:
            raise _busy(job, _read(path))
        os.ftruncate(handle, 0)
        os.write(handle, msgspec.json.encode(Holder(pid=os.getpid(), since=datetime.now(UTC).isoformat())))
        yield
    finally:
        os.close(handle)


def holder(job: Job) -> Holder | None:
    """The process that runs a job now, if any."""
    try:
        handle = os.open(_path(job), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(_path(job))
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def _read(path: Path) -> Holder:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return Holder()


def _busy(job: Job, who: Holder) -> UsageError:
    return UsageError(
        f"the nightly run {job.name} is still going on",
        cause=who.words,
        next_step=f"It is not started twice. quizmatrix nightly status {job.name}",
    )
