"""Waits for processes of tests, and finds guests."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# Seconds for a process to be ready, and to end.
LIMIT = 60.0
_PAUSE = 0.1


def wait_for(
    is_so: Callable[[], object], process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Wait until a function says so; AssertionError where it never does, or the process ends first."""
    ends = time.monotonic() + LIMIT
    while not is_so():
        has_ended = process is not None and process.poll() is not None
        if has_ended or time.monotonic() > ends:
            if process is not None:
                process.kill()
                process.wait()
            raise AssertionError(log.read_text() if log is not None else "it did not come to that")
        time.sleep(_PAUSE)


def qemus_with(text: str) -> list[int]:
    """The processes of QEMU with this text in their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if line.partition(b"\0")[0].rpartition(b"/")[2].startswith(b"qemu-system") and text.encode() in line:
            found.append(int(place.name))
    return found


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, and not yet awaited."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def running_children(word: str) -> list[int]:
    """Our own children that run and have this word in their command line.

    A whole session of tests has others, too: what is built for later tests is a child of this process.
    """
    return [pid for pid in children_of(os.getpid()) if is_running(pid) and word in words_of(pid)]


def words_of(pid: int) -> list[str]:
    """A process's command line; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def program_of(pid: int) -> str:
    """The first word of a process's command line."""
    return words_of(pid)[0]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
