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

# Seconds between two looks whether our terminal is ours to read again: no event tells.
_TAKEN_PAUSE = 0.5


async def feed(port: Port, source: InputSource) -> None:
    """Pass the source's bytes to the guest, and their end. OSError where they cannot be read.

    The guest waits for a line of ours before it takes anything: a port that is not yet open at this end reads
    as ended. QEMU takes what we sent before it sees that no more comes, and the guest reads all that before
    the end.
    """
    await port.send(b"\n")
    while data := await source.read():
        await port.send(data)
    port.end()


class Feed:
    """The way of one attempt's stdin into its guest; it does nothing where the specification has none."""

    def __init__(self, spec: CellSpec, port: Port | None, own: InputSource | None) -> None:
        """own: what the specification means by `-`; it is read from `begin` on, and not before."""
        self._path = spec.stdin
        self._port = port
        self._source = own if spec.stdin == OWN_STDIN else None
        self._begun = anyio.Event()
        self._scope = anyio.CancelScope()
        # What went wrong, for a person.
        self.error = ""

    def begin(self) -> None:
        """The command runs."""
        self._begun.set()

    def stop(self) -> None:
        """The command has ended, or will not be run."""
        self._scope.cancel()

    def unread(self) -> None:
        """The guest says that nobody reads it any more."""
        self.stop()
        if self._source is not None:
            self._source.close()

    async def pump(self) -> None:
        """Pass it on from `begin` to its end, or to `stop`."""
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
    """Nothing, where nobody has what the specification speaks of."""

    consumed = False

    async def read(self) -> bytes:
        """No bytes: the end."""
        return b""

    def close(self) -> None:
        """There is nothing to close."""


class FileSource:
    """A regular file, from its beginning, for each cell anew."""

    consumed = False

    def __init__(self, path: str) -> None:
        """OSError where it cannot be opened."""
        self._file = io.FileIO(path)

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        return await in_thread(partial(self._file.read, CHUNK)) or b""

    def close(self) -> None:
        """Read no more."""
        self._file.close()


class OwnSource:
    """Our own stdin. Nothing is read before somebody asks, and nothing waits for it but who asks."""

    def __init__(self, descriptor: int = 0) -> None:
        """Changes nothing yet."""
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self._is_tty = os.isatty(descriptor)
        # Neither a file nor a device like /dev/zero can be waited for (epoll_ctl(2), EPERM).
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
                # In a thread: somebody who shares our stdin may have been faster.
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
        """Nobody reads it any more: whoever writes into a pipe is told, as by any program that has ended."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, self._descriptor)
        os.close(nothing)
        self._can_wait = False


def _read(descriptor: int) -> bytes:
    """With SIGTTIN blocked a read in the background of a terminal fails and does not stop us (termios(3))."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
    try:
        return os.read(descriptor, CHUNK)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _edits_lines(descriptor: int) -> bool:
    """Whether the terminal is as a shell leaves it.

    A pager that shows our output has it give every key at once, and those keys are the pager's.
    """
    try:
        return bool(termios.tcgetattr(descriptor)[3] & termios.ICANON)
    except termios.error:  # it is gone: reading tells
        return True


def _is_in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not our terminal any more
        return True


def own_source() -> OwnSource | None:
    """Our stdin, or None where there is nothing to read: /dev/null, or what is somebody else's to read."""
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
    """Whether our stdin is the one that `git bisect run` was started with: it starts us again and again."""
    pid = os.getppid()
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
            if _is_git_bisect(words):
                its = Path(f"/proc/{pid}/fd/0").stat()
                return (its.st_dev, its.st_ino) == (own.st_dev, own.st_ino)
        except (OSError, ValueError):  # it has ended meanwhile, or is not ours to look at
            return False
        pid = parent
    return False


def _is_git_bisect(words: list[bytes]) -> bool:
    names = [word.rpartition(b"/")[2] for word in words[:3]]
    if not names:
        return False
    # `git -C DIR bisect` has git itself start `git bisect--helper` or git-bisect, a script.
    return (names[0] == b"git" and names[1:2] in ([b"bisect"], [b"bisect--helper"])) or b"git-bisect" in names
