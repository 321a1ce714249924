"""Nightly jobs: one JSON file for each, found by its name."""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import msgspec

import quizmatrix
from quizmatrix.core import paths, private
from quizmatrix.core.errors import DataError, UsageError, host_error
from quizmatrix.core.json import to_json
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.model.options import RunOptions

# It is part of file names, of unit names and of a crontab's line.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# What a night has from the shell in which it was installed: cron(8) and a service manager give little.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_KEPT = ("PATH", "XDG_DATA_HOME", "CCACHE_DIR", *_PROXIES, *(name.upper() for name in _PROXIES))


class NightlyStarter(StrEnum):
    """Who starts it."""

    SYSTEMD = "systemd"
    CRON = "cron"


class Job(msgspec.Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """A nightly run: one field for each key of its file.

    at: HH:MM, local time. arguments, options, command: `quizmatrix run`'s; no command where the matrix has
    its own, and no options in the file of an earlier quizmatrix.
    folder: where it is run. environment: variables that are set for it. keep, older_than (as 30d): which of
    its runs stay after each night. entry: what the timer runs; entry_environment: variables that this takes.
    """

    schema_: int = 1
    name: str
    at: str
    scheduler: NightlyStarter
    arguments: list[str]
    options: RunOptions | None = None
    command: list[str] | None
    folder: str
    environment: dict[str, str]
    keep: int | None = None
    older_than: str | None = None
    entry: list[str]
    entry_environment: dict[str, str]

    @property
    def state(self) -> Path:
        """The state directory in which it runs."""
        return Path(self.environment["QUIZMATRIX_STATE_DIR"])

    @property
    def hour_and_minute(self) -> tuple[int, int]:
        """Of `at`."""
        hour, minute = self.at.split(":")
        return int(hour), int(minute)

    def next_time(self, now: datetime) -> datetime:
        """The next time of day that is `at`; now: local time without a zone, as a clock on the wall shows."""
        hour, minute = self.hour_and_minute
        today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a job's timer or line. next: local time, None where not known. trouble: why it will
    not run as it was installed; empty where it will.
    """

    next: datetime | None = None
    trouble: str = ""


def parse_at(text: str) -> str:
    """A time of day as HH:MM; ValueError where it is none."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", text, re.ASCII)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise ValueError("has to be a time of day, 00:00 to 23:59")
    return f"{int(match[1]):02d}:{match[2]}"


def check_name(name: str) -> str:
    """`name`; UsageError where it cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a nightly run cannot be named {name!r}",
            cause="a name is up to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`, the first one a letter or digit",
            next_step="Name it with --name.",
        )
    return name


def name_of(matrix: str) -> str:
    """What a job is called unless it is named: as its matrix, without what a name cannot have."""
    return check_name(re.sub(r"[^A-Za-z0-9._-]+", "-", Path(matrix).name.removesuffix(".toml")).lstrip("._-"))


def environment() -> dict[str, str]:
    """The variables that a night is to find as they are now."""
    found = {name: os.environ[name] for name in _KEPT if name in os.environ}
    for kind, folder in (
        ("CACHE", paths.cache_dir()),
        ("STATE", paths.state_dir()),
        ("CONFIG", paths.config_dir()),
    ):
        # Always, so that who runs it by hand, with others, gets the same.
        found[f"QUIZMATRIX_{kind}_DIR"] = str(folder)
    return found


def entry(name: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs a job of this name from anywhere, and the variables that this takes.

    -P: Python would look for modules in the current folder, which for cron is the home directory.
    """
    words = [sys.executable, "-P", "-m", "quizmatrix", "nightly", "run", name]
    needed = {}
    if "QUIZMATRIX_CONFIG_DIR" in os.environ or "XDG_CONFIG_HOME" in os.environ:
        needed["QUIZMATRIX_CONFIG_DIR"] = str(paths.config_dir())
    checkout = str(Path(quizmatrix.__file__).resolve().parents[1])
    if "PYTHONPATH" in os.environ or checkout == str(Path.cwd()):
        # We may be found only since we were started so.
        places = [checkout, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        needed["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, places)))
    return words, needed


def _folder() -> Path:
    return paths.config_dir() / "nightly"


def path_of(name: str) -> Path:
    """The file of a job."""
    return _folder() / f"{name}.json"


def names() -> list[str]:
    """The names of the jobs that there are."""
    return sorted(path.stem for path in _folder().glob("*.json") if _NAME.fullmatch(path.stem))


def unknown(name: str) -> UsageError:
    """That there is no job of this name, with the nearest."""
    there = f"There are: {', '.join(names())}." if names() else "quizmatrix nightly install --help"
    return UsageError(f"there is no nightly run `{name}`", next_step=did_you_mean(name, names()) or there)


def load(name: str) -> Job:
    """A job; UsageError where there is none of this name, DataError where its file cannot be read."""
    path = path_of(name)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Job)
        found.state, found.hour_and_minute  # noqa: B018 - raise where they are not there
    except FileNotFoundError:
        raise unknown(name) from None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is no nightly run's file",
            cause=str(error),
            next_step=f"Install it again, or remove it: quizmatrix nightly remove {name}",
        ) from error
    return found


def save(job: Job) -> None:
    """Write a job's file. UsageError where a word of it is no UTF-8, HostError where it cannot be written."""
    try:
        data = msgspec.json.encode(job)
    except UnicodeEncodeError as error:
        raise UsageError(
            "the command line cannot be kept for the night",
            cause="a word of it is no UTF-8",
            next_step="Put it into a script, and name that.",
        ) from error
    try:
        # Not for others: a proxy's password may be among the variables, a secret among --env.
        private.folder(_folder())
        private.write(path_of(job.name), msgspec.json.format(data) + b"\n")
    except OSError as error:
        raise host_error("write the nightly run's file", error) from error


def remove(name: str) -> bool:
    """Remove a job's file; whether there was one."""
    try:
        path_of(name).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise host_error("remove the nightly run's file", error) from error
    return True


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """How the last one went. started, finished: ISO 8601 in UTC; finished is None while it runs, or was
    killed. run: its id; empty where none came of it. error: why.
    """

    started: str
    finished: str | None = None
    exit_code: int | None = None
    run: str = ""
    totals: dict[str, int] = {}
    error: str = ""


def _night_of(job: Job) -> Path:
    return job.state / "nightly" / f"{job.name}.json"


def keep_night(job: Job, night: Night) -> None:
    """Write how it went, for `last_night`."""
    try:
        private.folder(_night_of(job).parent)
        private.write(_night_of(job), to_json(night))
    except OSError as error:
        raise host_error("write how the night went", error) from error


def last_night(job: Job) -> Night | None:
    """How the last one went; None where there was none yet, or nobody knows."""
    try:
        return msgspec.json.decode(_night_of(job).read_bytes(), type=Night)
    except (OSError, msgspec.MsgspecError):
        return None
