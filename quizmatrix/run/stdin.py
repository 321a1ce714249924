"""The command's standard input: read from a file or pipe on the host and sent to the guest."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import termios
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import HostError, host_error
from quizmatrix.model.spec import OWN_STDIN, CellSpec
from quizmatrix.run.channel import CHUNK, Port
from quizmatrix.run.observer import InputSource

# Seconds between two checks whether we may read our terminal again; no event reports it.
_TAKEN_PAUSE = 0.5


async def feed(port: Port, source: InputSource) -> None:
    """Send the source's bytes to the guest, then end of file. OSError if they cannot be read.

    The guest first waits for a line from us: a port that is not open at our end yet would look ended to it.
    QEMU reads all that we sent before it sees the end, so the guest gets all bytes.
    """
    await port.send(b"\n")
    while data := await source.read():
        await port.send(data)
    port.end()


class Feed:
    """Sends stdin to the guest of one attempt; does nothing if the specification has no stdin."""

    def __init__(self, spec: CellSpec, port: Port | None, own: InputSource | None) -> None:
        """own: the source for the specification's `-`; it is not read before `begin`."""
        self._path = spec.command.stdin
        self._port = port
        self._source = own if spec.command.stdin == OWN_STDIN else None
        self._begun = anyio.Event()
        self._scope = anyio.CancelScope()
        # An error message, or empty.
        self.error = ""

    def begin(self) -> None:
        """The command has started: begin to send."""
        self._begun.set()

    def stop(self) -> None:
        """The command has ended or will not run: stop sending."""
        self._scope.cancel()

    def unread(self) -> None:
        """The guest reports that nobody reads it any more: stop, and close the source."""
        self.stop()
        if self._source is not None:
            self._source.close()

    async def pump(self) -> None:
        """Send from `begin` until the source ends, or until `stop`."""
        if self._path is None or self._port is None:
            return
        with self._scope, ExitStack() as stack:
            await self._begun.wait()
            try:
                if self._path != OWN_STDIN:
                    self._source = FileSource(self._path)
                    stack.callback(self._source.close)
                await feed(self._port, self._source or EmptyInput())
            except (OSError, HostError) as error:
                if isinstance(error, OSError):
                    error = host_error("read the command's stdin", error)
                self.error = str(error)
                self._port.end()


class EmptyInput:
    """An empty source, if the specification has `-` but the observer has no stdin."""

    consumed = False

    async def read(self) -> bytes:
        """Return no bytes: the end."""
        return b""

    def close(self) -> None:
        """Do nothing."""


class FileSource:
    """A regular file; each cell reads it from the beginning."""

    consumed = False

    def __init__(self, path: str) -> None:
        """Raises OSError if it cannot be opened."""
        self._file = io.FileIO(path)

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        return await in_thread(partial(self._file.read, CHUNK)) or b""

    def close(self) -> None:
        """Read no more."""
        self._file.close()


class OwnSource:
    """Our own stdin. It is read only on demand, without blocking other tasks."""

    def __init__(self, descriptor: int = 0) -> None:
        """Does not read yet."""
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self._is_tty = os.isatty(descriptor)
        # Files and devices like /dev/zero do not support epoll (epoll_ctl(2), EPERM).
        self._can_wait = self._is_tty or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self.consumed = False

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        while True:
            if self._can_wait:
                await anyio.wait_readable(self._descriptor)
            if self._is_tty and not _edits_lines(self._descriptor):
                await anyio.sleep(_TAKEN_PAUSE)
                continue
            before, self.consumed = self.consumed, True
            try:
                # In a thread: another process may share our stdin and have read the data, so this may block.
                data = await in_thread(partial(_read, self._descriptor))
            except BlockingIOError:
                self.consumed = before
                continue
            except OSError as error:
                self.consumed = before
                if not (
                    self._is_tty and error.errno == errno.EIO and not _is_in_foreground(self._descriptor)
                ):
                    raise
                await anyio.sleep(_TAKEN_PAUSE)
                continue
            self.consumed = before or bool(data)
            return data

    def close(self) -> None:
        """Replace our stdin by /dev/null, so that a process that writes to the pipe gets SIGPIPE."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, self._descriptor)
        os.close(nothing)
        self._can_wait = False


def _read(descriptor: int) -> bytes:
    """Read with SIGTTIN blocked: in the background a read then fails instead of stopping us (termios(3))."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
    try:
        return os.read(descriptor, CHUNK)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _edits_lines(descriptor: int) -> bool:
    """Whether the terminal is in canonical mode, as a shell leaves it.

    A pager that shows our output turns that off, and then reads the keys itself.
    """
    try:
        return bool(termios.tcgetattr(descriptor)[3] & termios.ICANON)
    except termios.error:  # the terminal is gone; the read will report it
        return True


def _is_in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not our terminal any more
        return True


def own_source() -> OwnSource | None:
    """Our stdin; None if there is nothing to read: it is /dev/null, or it belongs to another program."""
    state = os.fstat(0)
    is_null = stat.S_ISCHR(state.st_mode) and state.st_rdev == Path(os.devnull).stat().st_rdev
    if is_null or _is_of_a_bisection(state):
        return None
    try:
        os.read(0, 0)
    except OSError:  # not open for reading
        return None
    return OwnSource()


def _is_of_a_bisection(own: os.stat_result) -> bool:
    """Whether our stdin is that of a `git bisect run`, which starts us repeatedly with the same stdin."""
    pid = os.getppid()
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
            if _is_git_bisect(words):
                its = Path(f"/proc/{pid}/fd/0").stat()
                return (its.st_dev, its.st_ino) == (own.st_dev, own.st_ino)
        except (OSError, ValueError):  # the process has ended, or may not be inspected by us
            return False
        pid = parent
    return False


def _is_git_bisect(words: list[bytes]) -> bool:
    names = [word.rpartition(b"/")[2] for word in words[:3]]
    if not names:
        return False
    # For `git -C DIR bisect`, git itself starts `git bisect--helper` or the script git-bisect.
    return (names[0] == b"git" and names[1:2] in ([b"bisect"], [b"bisect--helper"])) or b"git-bisect" in names
