"""How much memory this process can still use."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import cgroup


def available_memory() -> int:
    """MiB that this process can still use: what the host has free, within the limits of our cgroups."""
    ours = cgroup.memory_left()
    return hosts_memory() if ours is None else min(hosts_memory(), ours >> 20)


def hosts_memory() -> int:
    """The host's MemAvailable in MiB, from /proc/meminfo (kernel document filesystems/proc.rst)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 1024
