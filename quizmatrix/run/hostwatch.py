"""Detects that this host was suspended or ran out of memory while a guest ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from quizmatrix.core import cgroup
from quizmatrix.core.units import format_seconds

# Seconds by which the two clocks may drift apart without a suspension.
_DRIFT = 1.0


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """The state of this host at one moment.

    awake, passed: seconds since the boot, without and with time in suspension (clock_gettime(2),
    CLOCK_MONOTONIC and CLOCK_BOOTTIME).
    oom_kills: the number of OOM-killed processes: of our cgroup if the kernel counts by cgroup, else of the
    whole host (`oom_kill` in /proc/vmstat).
    """

    awake: float
    passed: float
    oom_kills: int


def now() -> Moment:
    """The state of this host now."""
    return Moment(
        awake=time.clock_gettime(time.CLOCK_MONOTONIC),
        passed=time.clock_gettime(time.CLOCK_BOOTTIME),
        oom_kills=_oom_kills(),
    )


class HostWatch:
    """Compares the host's state with its state when the watch was made."""

    def __init__(self, look: Callable[[], Moment] = now) -> None:
        """look: returns the host's state."""
        self._look = look
        self._first = look()

    @property
    def has_killed_for_memory(self) -> bool:
        """Whether the host's kernel has OOM-killed a process since."""
        return self._look().oom_kills > self._first.oom_kills

    @property
    def notes(self) -> list[str]:
        """Notes for the user about the outcome."""
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
