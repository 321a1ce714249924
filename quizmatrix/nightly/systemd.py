"""Nightly jobs as timers of the user's systemd (systemd.timer(5)), which make up for missed nights."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import datetime
from pathlib import Path

from quizmatrix.core import paths, process
from quizmatrix.core.errors import HostError, host_error
from quizmatrix.nightly.job import Job, TimerState

# A night begins up to so much later than its time, so that many hosts do not ask Debian at the same moment.
RANDOM_DELAY = "10min"

# The variables by which systemctl finds the user's service manager.
_BUS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME")


def unit_name(name: str) -> str:
    """The name of a job's units, without `.service` or `.timer`."""
    return f"quizmatrix-{name}"


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or paths.home() / ".config") / "systemd/user"


def _files(name: str) -> list[Path]:
    return [_folder() / f"{unit_name(name)}.{kind}" for kind in ("service", "timer")]


def service_of(job: Job) -> str:
    """The .service file of a job.

    KillMode=mixed: only quizmatrix gets SIGTERM; it stops its guests and reports. TimeoutStartSec: the
    default would end a night after 90 seconds. SuccessExitStatus is not set: a night that failed shows as
    failed.
    """
    settings = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in job.entry_environment.items()
    )
    return (
        f"# Written by `quizmatrix nightly install`; removed by `quizmatrix nightly remove {job.name}`.\n"
        f"[Unit]\nDescription=quizmatrix nightly {job.name}\n\n"
        f"[Service]\nType=oneshot\n{settings}"
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in job.entry)}\n"
        "TimeoutStartSec=infinity\nKillMode=mixed\nNice=10\n"
    )


def timer_of(job: Job) -> str:
    """The .timer file of a job."""
    return (
        f"# Written by `quizmatrix nightly install`; removed by `quizmatrix nightly remove {job.name}`.\n"
        f"[Unit]\nDescription=quizmatrix nightly {job.name}, every night at {job.at}\n\n"
        f"[Timer]\nOnCalendar=*-*-* {job.at}:00\nPersistent=true\nRandomizedDelaySec={RANDOM_DELAY}\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _quoted(word: str) -> str:
    """Quote a word for a unit file (systemd.syntax(7), "Quoting"; `%`: systemd.unit(5), "Specifiers")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"' if escaped == "" or re.search(r"[^\w@+=:,./-]|%", escaped, re.ASCII) else escaped


def _systemctl(*words: str) -> process.Completed:
    return process.run_blocking(["systemctl", "--user", *words], keep=_BUS)


def is_reachable() -> bool:
    """Whether this user has a service manager."""
    return process.find_program("systemctl") is not None and _systemctl("show-environment").status == 0


def _do(*words: str) -> None:
    done = _systemctl(*words)
    if done.status != 0:
        raise HostError(
            f"systemctl --user {' '.join(words)} failed",
            cause=done.last_words,
            next_step="--scheduler cron takes the crontab instead.",
        )


def install(job: Job) -> None:
    """Write a job's units and start its timer. Raises HostError where that fails."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        for path, text in zip(_files(job.name), (service_of(job), timer_of(job)), strict=True):
            paths.write_atomic(path, text.encode())
    except OSError as error:
        raise host_error("write the units of systemd", error) from error
    _do("daemon-reload")
    _do("enable", f"{unit_name(job.name)}.timer")
    # Not `enable --now`: a timer that is active already would keep its old time.
    _do("restart", f"{unit_name(job.name)}.timer")


def remove(name: str) -> bool:
    """Disable a job's timer and remove its units; returns whether there were any.

    A night that is going on is not stopped.
    """
    wanted = _folder() / "timers.target.wants" / f"{unit_name(name)}.timer"
    there = [path for path in (*_files(name), wanted) if path.exists() or path.is_symlink()]
    if not there:
        return False
    reachable = is_reachable()
    if reachable:
        _systemctl("disable", "--now", f"{unit_name(name)}.timer")
    try:
        for path in there:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    except OSError as error:
        raise host_error("remove the units of systemd", error) from error
    if reachable:
        _systemctl("daemon-reload")
    return True


def timer_state(job: Job, now: datetime) -> TimerState:
    """Whether systemd will run a job, and when. now: local time."""
    lost = [path for path in _files(job.name) if not path.exists()]
    if lost:
        return TimerState(trouble=f"{lost[0]} was removed by hand")
    for path, text in zip(_files(job.name), (service_of(job), timer_of(job)), strict=True):
        if path.read_bytes() != text.encode():
            return TimerState(trouble=f"{path} was edited by hand")
    if not is_reachable():
        return TimerState(trouble="the user's systemd cannot be reached from here")
    timer = f"{unit_name(job.name)}.timer"
    if _systemctl("is-active", timer).status != 0:
        return TimerState(trouble=f"{timer} is not active: systemctl --user enable --now {timer}")
    return TimerState(next=job.next_time(now))


def lingers() -> bool:
    """Whether the user's service manager runs while the user is not logged in."""
    asked = process.run_blocking(
        ["loginctl", "show-user", str(os.getuid()), "-p", "Linger", "--value"], keep=_BUS
    )
    return asked.status == 0 and asked.output.strip() == b"yes"
