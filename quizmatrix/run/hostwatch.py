"""Detects that this host was suspended or ran out of memory while a guest ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from quizmatrix.core import cgroup
from quizmatrix.core.units import format_seconds

# Seconds that the clocks may drift apart by themselves.
_DRIFT = 1.0


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """This host at one time.

    awake, passed: seconds since its start, without and with those that it was suspended (clock_gettime(2),
    CLOCK_MONOTONIC and CLOCK_BOOTTIME). oom_kills: processes that its kernel killed for want of memory: of
    our own cgroup, where the kernel counts by cgroup, else all (`oom_kill` of /proc/vmstat).
    """

    awake: float
    passed: float
    oom_kills: int


def now() -> Moment:
    """This host as it is."""
    return Moment(
        awake=time.clock_gettime(time.CLOCK_MONOTONIC),
        passed=time.clock_gettime(time.CLOCK_BOOTTIME),
        oom_kills=_oom_kills(),
    )


class HostWatch:
    """Compares this host with what it was when the watch was made."""

    def __init__(self, look: Callable[[], Moment] = now) -> None:
        """look: tells what the host is like."""
        self._look = look
        self._first = look()

    @property
    def has_killed_for_memory(self) -> bool:
        """Whether the kernel has killed anything of ours for want of memory since."""
        return self._look().oom_kills > self._first.oom_kills

    @property
    def notes(self) -> list[str]:
        """What a person has to know who reads the outcome."""
        now = self._look()
        asleep = (now.passed - self._first.passed) - (now.awake - self._first.awake)
        return [f"this host was suspended for {format_seconds(asleep)} meanwhile"] if asleep > _DRIFT else []


def _oom_kills() -> int:
    if (ours := cgroup.oom_kills()) is not None:
        return ours
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
