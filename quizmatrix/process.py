"""The only place that starts a process. Every command line can be printed and pasted."""

from __future__ import annotations

import contextlib
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

from quizmatrix import cgroup
from quizmatrix.errors import HostError

# Hears what a long step is doing, a line at a time.
Tell = Callable[[str], None]

# Seconds between asking a helper program to stop and killing it.
TERM_GRACE = 5.0

# A child of the runner has to die with it, `kill -9` included. setpriv(1) asks the kernel for a
# SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG); a parent that died before that was
# asked shows as another $PPID.
_PARENT_CHECK = '[ "$PPID" = "$0" ] || exit 111; exec "$@"'


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
    try:
        return await _open(
            argv,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            env=dict(os.environ) | dict(env or {}),
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"cannot start {argv[0]}", cause=error.strerror or str(error)) from error


async def _open(
    argv: Sequence[str], *, stdin: IO[bytes] | int = subprocess.DEVNULL, **options: Any
) -> Process:
    """Start a child. Shielded: one that is cancelled in between would leave a child that nobody knows."""
    with anyio.CancelScope(shield=True):
        child = await anyio.open_process(tied_to_parent(argv), stdin=stdin, **options)
    return child  # noqa: RET504 - a scope may end early, says mypy


def ask(argv: Sequence[str], *, stdin: bytes = b"", keep: Sequence[str] = ()) -> Completed:
    """Run a program that answers at once, and wait for it; status 127 where it is not installed.

    keep: variables that it gets beside those that every helper does.
    """
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, check=False, env=_small_environment() | kept
        )
    except OSError as error:
        return Completed(argv=tuple(argv), status=127, output=b"", errors=str(error).encode())
    return Completed(argv=tuple(argv), status=done.returncode, output=done.stdout, errors=done.stderr)


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
) -> Completed:
    """Run a helper program to its end with a small environment; its output comes back.

    env: added to PATH, HOME, LC_ALL and proxy settings. pass_fds: descriptors that it inherits. on_output:
    is given stdout and stderr as they come, and they do not come back. Cancellation stops the program and
    its children: TERM, five seconds, KILL.
    """
    small = _small_environment()
    try:
        process = await _open(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=small | dict(env or {}),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"cannot start {argv[0]}", cause=error.strerror or str(error)) from error
    output, errors = bytearray(), bytearray()

    async def drain(stream: anyio.abc.ByteReceiveStream | None, into: bytearray) -> None:
        if stream is not None:
            async for chunk in stream:
                if on_output is None:
                    into += chunk
                else:
                    on_output(chunk)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(drain, process.stdout, output)
            group.start_soon(drain, process.stderr, errors)
        status = await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    return Completed(argv=tuple(argv), status=status, output=bytes(output), errors=bytes(errors))


async def _end(process: Process) -> None:
    """End a helper's whole process group, asking first."""
    if process.returncode is None:
        with anyio.move_on_after(TERM_GRACE):
            signal_group(process, signal.SIGTERM)
            await process.wait()
    if process.returncode is None:
        signal_group(process, signal.SIGKILL)
        await process.wait()
    await process.aclose()


def signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to a child and its children, where they are still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
