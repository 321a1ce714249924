"""How much memory this process can still use."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import cgroup


def available_memory() -> int:
    """MiB that this process may still take: of the host's, and within the limits of its cgroups."""
    ours = cgroup.memory_left()
    return hosts_memory() if ours is None else min(hosts_memory(), ours >> 20)


def hosts_memory() -> int:
    """MiB, MemAvailable of /proc/meminfo (kernel document filesystems/proc.rst)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 1024
