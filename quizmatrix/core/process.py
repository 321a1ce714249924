"""Starts processes; nothing else does. Every command line can be printed and pasted into a shell."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import anyio
import msgspec
from anyio.abc import Process

from quizmatrix.core import cgroup, reaper
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import HostError
from quizmatrix.core.units import format_seconds

# Hears what is going on, a line at a time.
Tell = Callable[[str], None]

# Seconds between asking a helper program to stop and killing it, and for it to die of that: one that hangs
# in the kernel (a file server that does not answer) does not.
TERM_GRACE = 5.0
KILL_GRACE = 5.0
# Seconds for a program to be there.
_START_LIMIT = 10.0
# Seconds without a byte after which what a program that has ended left running is no longer listened to, and
# those after which it is not even if it goes on writing.
_OUTPUT_GRACE = 1.0
_OUTPUT_AT_MOST = 10.0
# Seconds for a program that answers at once, and for any other that names no limit of its own.
_ANSWER_LIMIT = 30.0
_LIMIT = 3600.0

# Bytes of a helper's errors that are kept: the last ones.
_ERRORS_KEPT = 1 << 20

# A child of the runner has to die with it, `kill -9` included. setpriv(1) asks the kernel for a
# SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG); a parent that died before that was
# asked shows as another $PPID.
_PARENT_CHECK = '[ "$PPID" = "$0" ] || exit 111; exec "$@"'


class NotEndedError(HostError):
    """A helper program had not ended in time."""


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A helper program that ended: its exit status (negative: the signal) and its output."""

    argv: tuple[str, ...]
    status: int
    output: bytes
    errors: bytes

    @property
    def last_words(self) -> str:
        """The last lines of what it said on stderr, or else on stdout."""
        text = (self.errors.strip() or self.output.strip()).decode(errors="replace")
        return "\n".join(text.splitlines()[-4:])


def printable(argv: Sequence[str]) -> str:
    """The command line as a shell takes it."""
    return shlex.join(argv)


def usable_cpus() -> int:
    """The CPUs that this process may run on, and whose time its cgroups (of a container, say) give it.

    Of half a CPU nothing can be made: a guest's time limits are those of a whole one.
    """
    given = cgroup.cpus()
    own = len(os.sched_getaffinity(0))
    return own if given is None else max(1, min(own, int(given)))


def find_program(name: str) -> str | None:
    """The path of a program; /sbin is searched too, where users have it off their PATH."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(name, path=path)


def require_program(name: str, package: str) -> str:
    """The path of a program; HostError names Debian's package of it where it is missing."""
    path = find_program(name)
    if path is None:
        raise HostError(f"`{name}` is not installed", next_step=f"On Debian: sudo apt-get install {package}")
    return path


def tied_to_parent(argv: Sequence[str]) -> list[str]:
    """`argv` so that the process ends with this one, however this one ends."""
    setpriv = require_program("setpriv", "util-linux")
    return [setpriv, "--pdeathsig", "KILL", "sh", "-c", _PARENT_CHECK, str(os.getpid()), *argv]


async def start(
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    output: IO[bytes] | int = subprocess.DEVNULL,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a long-lived child in a session of its own (a Ctrl-C at the terminal is not for it).

    stdout and stderr both go to `output`. env: added to this process's own environment. HostError where it
    cannot be started.
    """
    return await _open(
        argv,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        env=dict(os.environ) | dict(env or {}),
        start_new_session=True,
    )


async def _open(
    argv: Sequence[str], *, stdin: IO[bytes] | int = subprocess.DEVNULL, **options: Any
) -> Process:
    """Start a child. Shielded: one that is cancelled in between would leave a child that nobody knows.

    HostError where it cannot be started: it is not there, or the host gives no more processes.
    """
    reaper.use_pidfds()
    try:
        # Where asyncio cannot watch a child's pipe, it waits for ever for the end of all of them.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _START_LIMIT):
            return await anyio.open_process(tied_to_parent(argv), stdin=stdin, **options)
        raise HostError(f"cannot start {argv[0]}", cause="it took too long")
    except OSError as error:
        next_step = "`ulimit -u` shows how many processes you may have; -j 1 takes fewer."
        raise HostError(
            f"cannot start {argv[0]}",
            cause=error.strerror or str(error),
            next_step=next_step if error.errno == errno.EAGAIN else "",
        ) from error


def ask(
    argv: Sequence[str], *, stdin: bytes = b"", keep: Sequence[str] = (), limit: float = _ANSWER_LIMIT
) -> Completed:
    """Run a program that answers at once, and wait for it.

    keep: variables that it gets beside those that every helper does. limit: seconds. Its status is 127
    where it cannot be started, and 124 where it had not ended in time and was killed.
    """
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    # Files in memory, not pipes: who waits for a pipe's end waits for all that the program leaves running.
    with _memory_file(stdin) as given, _memory_file() as output, _memory_file() as errors:
        try:
            status = subprocess.run(
                argv,
                stdin=given,
                stdout=output,
                stderr=errors,
                check=False,
                env=_small_environment() | kept,
                timeout=limit,
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
            errors.write(f"{argv[0]} did not answer within {format_seconds(limit)}\n".encode())
        except OSError as error:
            status = 127
            errors.write(str(error).encode())
        said = [file.read() for file in (output, errors) if file.seek(0) == 0]
    return Completed(argv=tuple(argv), status=status, output=said[0], errors=said[1])


def _memory_file(data: bytes = b"") -> IO[bytes]:
    file = os.fdopen(os.memfd_create("quizmatrix"), "w+b", buffering=0)
    file.write(data)
    file.seek(0)
    return file


def _small_environment() -> dict[str, str]:
    """What a helper gets: nothing that would have it work elsewhere, or speak another language."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    keep = ("PATH", "HOME", "TMPDIR", "CCACHE_DIR", *proxies, *(name.upper() for name in proxies))
    small = {name: os.environ[name] for name in keep if name in os.environ}
    small["PATH"] = f"{small.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    small["LC_ALL"] = "C.UTF-8"
    return small


async def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    on_output: Callable[[bytes], None] | None = None,
    limit: float | None = _LIMIT,
) -> Completed:
    """Run a helper program to its end with a small environment; its output comes back.

    env: added to PATH, HOME, LC_ALL and proxy settings. pass_fds: descriptors that it inherits. on_output:
    is given stdout and stderr as they come, and they do not come back. limit: seconds. Cancellation stops the
    program and its children: TERM, five seconds, KILL. What it leaves running when it ends goes on.
    HostError where it cannot be started, NotEndedError where it takes longer than `limit`.
    """
    process = await _open(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=_small_environment() | dict(env or {}),
        pass_fds=pass_fds,
        start_new_session=True,
    )
    output, errors = bytearray(), bytearray()

    def hear_errors(data: bytes) -> None:
        errors.extend(data)
        # One for each of a million files that a guest left is more than anybody reads.
        if len(errors) > 2 * _ERRORS_KEPT:
            del errors[:-_ERRORS_KEPT]

    try:
        with anyio.fail_after(limit):
            status = await _listen(process, on_output or output.extend, on_output or hear_errors)
    except TimeoutError as error:
        raise NotEndedError(
            f"{argv[0]} was stopped",
            cause=f"it had not ended after {format_seconds(limit or 0)}",
            next_step=printable(argv),
        ) from error
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    return Completed(argv=tuple(argv), status=status, output=bytes(output), errors=bytes(errors))


async def _listen(
    process: Process, on_output: Callable[[bytes], None], on_errors: Callable[[bytes], None]
) -> int:
    """Take what a child says until it has ended; its exit status."""
    came = 0

    async def drain(stream: anyio.abc.ByteReceiveStream | None, take: Callable[[bytes], None]) -> None:
        nonlocal came
        if stream is not None:
            async for chunk in stream:
                came += len(chunk)
                take(chunk)

    async def leave(drains: anyio.CancelScope) -> None:
        latest = anyio.current_time() + _OUTPUT_AT_MOST
        before = -1
        while came > before and anyio.current_time() < latest:
            before = came
            # Twice: where the loop was busy during the first, the bytes that came are read before the second.
            await anyio.sleep(_OUTPUT_GRACE / 2)
            await anyio.sleep(_OUTPUT_GRACE / 2)
        drains.cancel()

    async with task_group() as group:
        async with task_group() as drains:
            drains.start_soon(drain, process.stdout, on_output)
            drains.start_soon(drain, process.stderr, on_errors)
            status = await process.wait()
            # A daemon that it started may have its output, and never close that.
            group.start_soon(leave, drains.cancel_scope)
        group.cancel_scope.cancel()
    return status


async def _end(process: Process) -> None:
    """End a helper's whole process group, asking first, and wait no longer than it may take."""
    if process.returncode is None:
        with anyio.move_on_after(TERM_GRACE):
            signal_group(process, signal.SIGTERM)
            await process.wait()
    if await kill(process):
        await process.aclose()


async def kill(process: Process) -> bool:
    """Kill a child and its children, and wait for its end; False where it has not died soon."""
    if process.returncode is None:
        signal_group(process, signal.SIGKILL)
        with anyio.move_on_after(KILL_GRACE):
            await process.wait()
    return process.returncode is not None


def signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to a child and its children, unless it has ended."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        # The number of a child that was reaped may be somebody else's by now. While it is to be waited for,
        # it is not, and only this thread reaps.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.killpg(process.pid, number)
