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
from typing import IO, Any, Protocol

import anyio
import msgspec
from anyio.abc import Process

from quizmatrix.core import cgroup, reaper
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import HostError
from quizmatrix.core.units import format_seconds

# Called with progress messages, a line at a time.
Tell = Callable[[str], None]

# Seconds between SIGTERM and SIGKILL for a helper program, and seconds to wait after SIGKILL: a process that
# hangs in the kernel (a file server does not answer) does not die of it.
TERM_GRACE = 5.0
KILL_GRACE = 5.0
# Seconds for starting a program.
_START_LIMIT = 60.0
# A program that has ended may leave children that still hold its output open. We stop reading that output
# after this many seconds without a byte, and at the latest after _OUTPUT_AT_MOST seconds.
_OUTPUT_GRACE = 1.0
_OUTPUT_AT_MOST = 10.0
# Default time limits in seconds: for `run_blocking`, whose programs answer at once, and for `run`.
_ANSWER_LIMIT = 30.0
_LIMIT = 3600.0

# The last bytes of a helper's stderr that are kept.
_ERRORS_KEPT = 1 << 20

# Our children must die with us, even if we get SIGKILL. setpriv(1) asks the kernel to send them SIGKILL when
# the parent dies (prctl(2), PR_SET_PDEATHSIG). If the parent died before that, $PPID is another process.
_PARENT_CHECK = '[ "$PPID" = "$0" ] || exit 111; exec "$@"'


class Child(Protocol):
    """A process that this one has started. returncode: see Completed.status; None until it has ended."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """See above."""

    async def wait(self) -> int:
        """Wait until it has ended; its returncode."""


class NotEndedError(HostError):
    """A helper program exceeded its time limit."""


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a helper program. status: exit status, or the negative signal number."""

    argv: tuple[str, ...]
    status: int
    output: bytes
    errors: bytes

    @property
    def last_words(self) -> str:
        """The last four lines of stderr, or of stdout if stderr is empty."""
        text = (self.errors.strip() or self.output.strip()).decode(errors="replace")
        return "\n".join(text.splitlines()[-4:])


def printable(argv: Sequence[str]) -> str:
    """The command line, quoted for a shell."""
    return shlex.join(argv)


def usable_cpus() -> int:
    """How many whole CPUs this process may use, by its affinity and the limits of its cgroups; at least 1.

    Fractions are rounded down: a guest's time limits assume whole CPUs.
    """
    given = cgroup.cpus()
    own = len(os.sched_getaffinity(0))
    return own if given is None else max(1, min(own, int(given)))


def find_program(name: str) -> str | None:
    """The path of a program; None if it is missing. /sbin is searched even if it is not in PATH."""
    return shutil.which(name, path=helper_path())


def helper_path() -> str:
    """The PATH of helper programs: that of the user, and the folders of the administrator's programs."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def require_program(name: str, package: str) -> str:
    """The path of a program. If it is missing, the HostError names its Debian package."""
    path = find_program(name)
    if path is None:
        raise HostError(f"`{name}` is not installed", next_step=f"On Debian: sudo apt-get install {package}")
    return path


def tied_to_parent(argv: Sequence[str]) -> list[str]:
    """`argv`, wrapped so that the process dies when this one does, however this one ends."""
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
    """Start a long-lived child in its own session, so that Ctrl-C at the terminal does not reach it.

    output: receives stdout and stderr. env: added to our environment. Raises HostError if it cannot be
    started.
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
    """Start a child. Shielded: a cancellation in between would leave a child that nobody waits for.

    Raises HostError if the program is missing, or if the host allows no more processes.
    """
    reaper.use_pidfds()
    try:
        # Limited: if asyncio cannot watch one of the child's pipes, it waits for ever until all are closed.
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _START_LIMIT):
            return await anyio.open_process(tied_to_parent(argv), stdin=stdin, **options)
        raise HostError(f"cannot start {argv[0]}", cause="it took too long")
    except OSError as error:
        raise cannot_start(argv[0], error) from error


def cannot_start(what: str, error: OSError) -> HostError:
    """The error for a process that could not be started."""
    next_step = "`ulimit -u` shows how many processes you may have; -j 1 takes fewer."
    return HostError(
        f"cannot start {what}",
        cause=error.strerror or str(error),
        next_step=next_step if error.errno == errno.EAGAIN else "",
    )


def run_blocking(
    argv: Sequence[str], *, stdin: bytes = b"", keep: Sequence[str] = (), limit: float = _ANSWER_LIMIT
) -> Completed:
    """Run a program that answers at once, and block until it ends.

    keep: names of environment variables that it gets beside those of every helper. limit: seconds.
    The status is 127 if it cannot be started, and 124 if it exceeded the limit and was killed.
    """
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    # Files in memory, not pipes: a pipe stays open as long as any child that the program leaves running.
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
    """The environment of helper programs: no variable that changes their language or what they work on."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    keep = ("PATH", "HOME", "TMPDIR", "CCACHE_DIR", *proxies, *(name.upper() for name in proxies))
    small = {name: os.environ[name] for name in keep if name in os.environ}
    small["PATH"] = helper_path()
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
    """Run a helper program with a small environment until it ends; return its status and output.

    env: added to PATH, HOME, LC_ALL and proxy settings.
    pass_fds: descriptors that it inherits.
    on_output: called with each piece of stdout and stderr; they are then not returned.
    limit: seconds.
    Cancellation ends the program and its children: SIGTERM, five seconds, SIGKILL. Children that it leaves
    behind when it ends keep running.
    Raises HostError if it cannot be started, NotEndedError if it takes longer than `limit`.
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

    def keep_errors(data: bytes) -> None:
        errors.extend(data)
        # A guest may leave a million files and cause an error message for each.
        if len(errors) > 2 * _ERRORS_KEPT:
            del errors[:-_ERRORS_KEPT]

    try:
        with anyio.fail_after(limit):
            status = await _listen(process, on_output or output.extend, on_output or keep_errors)
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
    """Read a child's output until it ends; return its exit status."""
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
            # Two sleeps: if the loop was busy during the first, it reads the waiting bytes before the second.
            await anyio.sleep(_OUTPUT_GRACE / 2)
            await anyio.sleep(_OUTPUT_GRACE / 2)
        drains.cancel()

    async with task_group() as group:
        async with task_group() as drains:
            drains.start_soon(drain, process.stdout, on_output)
            drains.start_soon(drain, process.stderr, on_errors)
            status = await process.wait()
            # A daemon that the child started may keep its output open for ever.
            group.start_soon(leave, drains.cancel_scope)
        group.cancel_scope.cancel()
    return status


async def _end(process: Process) -> None:
    """End a helper's process group: SIGTERM, then SIGKILL; the wait is limited."""
    if process.returncode is None:
        with anyio.move_on_after(TERM_GRACE):
            signal_group(process, signal.SIGTERM)
            await process.wait()
    if await kill(process):
        await process.aclose()


async def kill(process: Child) -> bool:
    """Kill a child and its children; False if it has not died within KILL_GRACE seconds."""
    if process.returncode is None:
        signal_group(process, signal.SIGKILL)
        with anyio.move_on_after(KILL_GRACE):
            await process.wait()
    return process.returncode is not None


def signal_group(process: Child, number: signal.Signals) -> None:
    """Send a signal to a child's process group, unless the child has ended."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        # After a child is reaped, its pid may belong to another process. waitid shows that it has not been
        # reaped yet, and only this thread reaps.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.killpg(process.pid, number)
