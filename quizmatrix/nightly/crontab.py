"""Nightly jobs in the user's crontab: adds, checks and removes two lines per job, and changes no other line.

The two lines are a comment, the mark `# quizmatrix nightly NAME`, and directly below it the entry that runs
NAME. If the line below a mark does not run NAME, it is the user's own and stays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import HostError
from quizmatrix.nightly.job import Job, TimerState

# The longest command that Debian's cron accepts (MAX_COMMAND in its cron.h, minus the final NUL).
_LONGEST = 998


def line_of(job: Job) -> str:
    """The entry that runs a job. Raises HostError where cron(8) would not accept it.

    `%` is escaped, since an unescaped one ends the command (crontab(5)).
    """
    hour, minute = job.hour_and_minute
    settings = [f"{name}={value}" for name, value in job.entry_environment.items()]
    words = shlex.join([*(["env", *settings] if settings else []), *job.entry]).replace("%", r"\%")
    if "\n" in words or len(words.encode()) > _LONGEST:
        raise HostError(
            f"a crontab cannot run {job.entry[0]}",
            cause="the command would be longer than cron takes" if "\n" not in words else "a newline in it",
            next_step="Install quizmatrix under a shorter path.",
        )
    return f"{minute} {hour} * * * {words}"


def mark_of(name: str) -> str:
    """The comment line above a job's entry."""
    return f"# quizmatrix nightly {name}"


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of a job in a crontab.

    first, end: the range of line numbers, without `end`. line: the entry below the mark; None where it is
    missing.
    """

    first: int
    end: int
    line: bytes | None


def _runs(line: bytes, name: str) -> bool:
    """Whether a line runs the job; also true of a line that is commented out."""
    return re.search(rb"-m quizmatrix nightly run " + re.escape(name.encode()) + rb"(?!\S)", line) is not None


def _entries(lines: list[bytes], name: str) -> Iterator[_Entry]:
    mark = mark_of(name).encode()
    for number, line in enumerate(lines):
        if line.rstrip(b" \t\r\n") == mark:
            has_line = number + 1 < len(lines) and _runs(lines[number + 1], name)
            yield _Entry(
                first=number,
                end=number + 1 + has_line,
                line=lines[number + 1] if has_line else None,
            )


def with_job(text: bytes, job: Job) -> bytes:
    """The crontab with a job's lines: in place of its earlier ones, or at the end."""
    ours = [mark_of(job.name).encode() + b"\n", line_of(job).encode() + b"\n"]
    lines = _lines(text)
    entries = list(_entries(lines, job.name))
    if not entries:
        if text and not text.endswith(b"\n"):
            text += b"\n"
        return text + b"".join(ours)
    at = entries[0].first
    lines = _without(lines, entries)
    return b"".join([*lines[:at], *ours, *lines[at:]])


def without_job(text: bytes, name: str) -> bytes:
    """The crontab without a job's lines."""
    lines = _lines(text)
    return b"".join(_without(lines, list(_entries(lines, name))))


def _lines(text: bytes) -> list[bytes]:
    """The lines, each with its newline. bytes.splitlines() would split at other characters, too."""
    return re.findall(rb"[^\n]*\n|[^\n]+", text)


def _without(lines: list[bytes], entries: list[_Entry]) -> list[bytes]:
    ours = {number for entry in entries for number in range(entry.first, entry.end)}
    return [line for number, line in enumerate(lines) if number not in ours]


def trouble_in(text: bytes, job: Job) -> str:
    """Why a crontab will not run a job as installed; empty where it will."""
    entries = list(_entries(_lines(text), job.name))
    if not entries:
        if any(_runs(line, job.name) for line in _lines(text)):
            return "its mark in the crontab was deleted by hand, its line was not"
        return "its line in the crontab was deleted by hand"
    if len(entries) > 1:
        return f"its line is {len(entries)} times in the crontab"
    line = entries[0].line
    if line is None:
        return "its line in the crontab was deleted by hand, its mark was not"
    if line.rstrip(b"\r\n") != line_of(job).encode():
        shown = line.strip().decode(errors="replace")
        return f"its line in the crontab was edited by hand: {shown}"
    return ""


def is_there() -> bool:
    """Whether this host has crontab(1)."""
    return process.find_program("crontab") is not None


def read() -> bytes:
    """The user's crontab, empty where there is none. Raises HostError where it cannot be read."""
    asked = process.run_blocking([process.require_program("crontab", "cron"), "-l"])
    if asked.status == 0:
        return asked.output
    if b"no crontab" in asked.errors or b"No such file" in asked.errors:
        return b""
    # It must not count as empty: then we would overwrite the user's lines.
    raise HostError("cannot read your crontab", cause=asked.last_words, next_step="crontab -l")


def _write(text: bytes) -> None:
    crontab = process.require_program("crontab", "cron")
    # Nothing is left: the user had no crontab of their own.
    done = process.run_blocking([crontab, "-"], stdin=text) if text else process.run_blocking([crontab, "-r"])
    if done.status != 0:
        raise HostError("cannot write your crontab", cause=done.last_words, next_step="crontab -e")


def install(job: Job) -> None:
    """Write a job's lines to the crontab. Raises HostError where that fails."""
    old = read()
    new = with_job(old, job)
    if new != old:
        _write(new)


def remove(name: str) -> bool:
    """Remove a job's lines from the crontab; returns whether there were any."""
    if not is_there():
        return False
    old = read()
    new = without_job(old, name)
    if new != old:
        _write(new)
    return new != old


def timer_state(job: Job, now: datetime) -> TimerState:
    """Whether the crontab will run a job, and when. now: local time."""
    if not is_there():
        return TimerState(trouble="crontab is not installed any more (Debian's package: cron)")
    trouble = trouble_in(read(), job)
    if not trouble and not daemon_runs():
        trouble = NO_DAEMON
    return TimerState(next=None if trouble else job.next_time(now), trouble=trouble)


NO_DAEMON = "no cron daemon runs here (on Debian: sudo systemctl start cron, or sudo service cron start)"


def daemon_runs(processes: Path = Path("/proc")) -> bool:
    """Whether a process is named like a cron daemon."""
    for path in processes.glob("[0-9]*/comm"):
        try:
            if re.search(r"cron(d)?$", path.read_text().strip()):
                return True
        except OSError:
            continue
    return False
