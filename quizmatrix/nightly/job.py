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

# A job's name is part of file names, unit names and crontab lines.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Variables that a night gets from the shell in which it was installed; cron(8) and systemd set few
# themselves.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_KEPT = ("PATH", "XDG_DATA_HOME", "CCACHE_DIR", *_PROXIES, *(name.upper() for name in _PROXIES))


class NightlyStarter(StrEnum):
    """What starts a nightly job."""

    SYSTEMD = "systemd"
    CRON = "cron"


class Job(msgspec.Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """A nightly run: one field for each key of its file.

    at: HH:MM, local time. arguments, options, command: those of `quizmatrix run`; command is None where the
    matrix has its own, options is None in the file of an earlier quizmatrix. folder: the folder where it
    runs. environment: variables that are set for the run. keep: the number of its runs to keep. older_than:
    runs that are older, for instance 30d, are removed. entry: the command that cron or systemd starts;
    entry_environment: the variables that this command needs.
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
        """The state directory that the job's runs use."""
        return Path(self.environment["QUIZMATRIX_STATE_DIR"])

    @property
    def hour_and_minute(self) -> tuple[int, int]:
        """`at` as two numbers."""
        hour, minute = self.at.split(":")
        return int(hour), int(minute)

    def next_time(self, now: datetime) -> datetime:
        """When the job runs next. now, and the result: local time without a time zone."""
        hour, minute = self.hour_and_minute
        today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)


class TimerState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job's timer or crontab line.

    next: when it runs next, in local time; None where that is not known. trouble: why it will not run as
    installed; empty where it will.
    """

    next: datetime | None = None
    trouble: str = ""


def parse_at(text: str) -> str:
    """A time of day as HH:MM. Raises ValueError where the text is none."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", text, re.ASCII)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise ValueError("has to be a time of day, 00:00 to 23:59")
    return f"{int(match[1]):02d}:{match[2]}"


def check_name(name: str) -> str:
    """Return `name`. Raises UsageError where it is no valid name of a job."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a nightly run cannot be named {name!r}",
            cause="a name is up to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`, the first one a letter or digit",
            next_step="Name it with --name.",
        )
    return name


def name_of(matrix: str) -> str:
    """The default name of a job: the name of its matrix, without characters that a name cannot have."""
    return check_name(re.sub(r"[^A-Za-z0-9._-]+", "-", Path(matrix).name.removesuffix(".toml")).lstrip("._-"))


def environment() -> dict[str, str]:
    """The variables of this process that a night gets, too."""
    found = {name: os.environ[name] for name in _KEPT if name in os.environ}
    for kind, folder in (
        ("CACHE", paths.cache_dir()),
        ("STATE", paths.state_dir()),
        ("CONFIG", paths.config_dir()),
    ):
        # Always set, so that a run by hand uses the same folders, whatever that shell has set.
        found[f"QUIZMATRIX_{kind}_DIR"] = str(folder)
    return found


def entry(name: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs a job of this name from any folder, and the variables that it needs.

    It has -P, since Python would else look for modules in the current folder, which for cron is the home
    directory.
    """
    words = [sys.executable, "-P", "-m", "quizmatrix", "nightly", "run", name]
    needed = {}
    if "QUIZMATRIX_CONFIG_DIR" in os.environ or "XDG_CONFIG_HOME" in os.environ:
        needed["QUIZMATRIX_CONFIG_DIR"] = str(paths.config_dir())
    checkout = str(Path(quizmatrix.__file__).resolve().parents[1])
    if "PYTHONPATH" in os.environ or checkout == str(Path.cwd()):
        # Python may find this package only because of PYTHONPATH or the current folder.
        places = [checkout, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        needed["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, places)))
    return words, needed


def _folder() -> Path:
    return paths.config_dir() / "nightly"


def path_of(name: str) -> Path:
    """The file of a job."""
    return _folder() / f"{name}.json"


def names() -> list[str]:
    """The names of all jobs, sorted."""
    return sorted(path.stem for path in _folder().glob("*.json") if _NAME.fullmatch(path.stem))


def unknown(name: str) -> UsageError:
    """The error that there is no job of this name; it suggests the nearest name."""
    there = f"There are: {', '.join(names())}." if names() else "quizmatrix nightly install --help"
    return UsageError(f"there is no nightly run `{name}`", next_step=did_you_mean(name, names()) or there)


def load(name: str) -> Job:
    """Read a job. Raises UsageError where there is none of this name, DataError where its file is damaged."""
    path = path_of(name)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Job)
        found.state, found.hour_and_minute  # noqa: B018 - these raise where a value is missing or wrong
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
    """Write a job's file. Raises UsageError where a word is no UTF-8, HostError where writing fails."""
    try:
        data = msgspec.json.encode(job)
    except UnicodeEncodeError as error:
        raise UsageError(
            "the command line cannot be kept for the night",
            cause="a word of it is no UTF-8",
            next_step="Put it into a script, and name that.",
        ) from error
    try:
        # Only for the owner: the variables may hold a proxy's password, and --env a secret.
        private.folder(_folder())
        private.write(path_of(job.name), msgspec.json.format(data) + b"\n")
    except OSError as error:
        raise host_error("write the nightly run's file", error) from error


def remove(name: str) -> bool:
    """Remove a job's file; returns whether there was one."""
    try:
        path_of(name).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise host_error("remove the nightly run's file", error) from error
    return True


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """How a night of a job went.

    started, finished: ISO 8601 in UTC; finished is None while it goes on, and where it was killed. run: the
    id of its run; empty where it made none. error: why it made none, or failed.
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
    """Write how a night went, for `last_night`. Raises HostError where writing fails."""
    try:
        private.folder(_night_of(job).parent)
        private.write(_night_of(job), to_json(night))
    except OSError as error:
        raise host_error("write how the night went", error) from error


def last_night(job: Job) -> Night | None:
    """How the last night went; None where there was none yet, or where its file cannot be read."""
    try:
        return msgspec.json.decode(_night_of(job).read_bytes(), type=Night)
    except (OSError, msgspec.MsgspecError):
        return None
