"""CPU and memory limits from this process's cgroups, as a container has them.

Reads both cgroup versions (kernel documents admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst and
scheduler/sched-bwc.rst). Every visible ancestor of our cgroup is read too: any of them may have the limit.
Nothing is cached, because limits change while programs run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PROC = Path("/proc")

# /proc/self/mountinfo writes blanks and backslashes as octal escapes (proc(5)).
_ESCAPED = re.compile(r"\\([0-7]{3})")

# The page cache of a cgroup. The kernel reclaims it before it kills a process.
_PAGE_CACHE = ("active_file", "inactive_file")


# Not a msgspec Struct: tests/vm runs this module in a guest, whose Python has only the standard library.
class Cgroup(NamedTuple):
    """A cgroup that this process is in. folder: where its files are. is_v2: whether it is of version 2."""

    folder: Path
    is_v2: bool

    def number(self, name: str) -> int | None:
        """The number in a file; None if there is no such file, or it sets no limit (`max`)."""
        try:
            text = (self.folder / name).read_text().strip()
        except OSError:
            return None
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    def table(self, name: str) -> dict[str, int]:
        """A file with a name and a number per line; empty if there is no such file."""
        try:
            lines = [line.split() for line in (self.folder / name).read_text().splitlines()]
        except OSError:
            return {}
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}

    @property
    def cpus(self) -> float | None:
        """CPU time limit in CPUs; None if this cgroup has no limit."""
        if self.is_v2:
            try:
                words = (self.folder / "cpu.max").read_text().split()
            except OSError:
                return None
            quota, period = (int(word) if word.isdecimal() else None for word in (*words, "", "")[:2])
        else:
            quota, period = self.number("cpu.cfs_quota_us"), self.number("cpu.cfs_period_us")
        return quota / period if quota and quota > 0 and period else None

    @property
    def memory_left(self) -> int | None:
        """Bytes left until the memory limit, reclaimable page cache included; None if there is no limit."""
        limits: tuple[str, ...]
        if self.is_v2:
            # Above memory.high, processes are throttled until they nearly stand still.
            limits, used = ("memory.max", "memory.high"), self.number("memory.current")
        else:
            limits, used = ("memory.limit_in_bytes",), self.number("memory.usage_in_bytes")
        limit = min((found for name in limits if (found := self.number(name)) is not None), default=None)
        if limit is None or used is None:
            return None
        facts = self.table("memory.stat")
        # In version 1, only the `total_` figures include child cgroups.
        prefix = "total_" if any(f"total_{name}" in facts for name in _PAGE_CACHE) else ""
        names = [*(f"{prefix}{name}" for name in _PAGE_CACHE), "slab_reclaimable"]
        return max(0, limit - used + min(sum(facts.get(name, 0) for name in names), used))

    @property
    def oom_kills(self) -> int | None:
        """How many of its processes were OOM-killed, for the cgroup's limit or for the host."""
        return self.table("memory.events" if self.is_v2 else "memory.oom_control").get("oom_kill")


def cpus(proc: Path = PROC) -> float | None:
    """The lowest CPU limit of our cgroups, in CPUs; None if there is no limit."""
    found = [one.cpus for one in _own_cgroups("cpu", proc)]
    return min((limit for limit in found if limit is not None), default=None)


def memory_left(proc: Path = PROC) -> int | None:
    """Bytes that our cgroups still allow, reclaimable page cache included; None if there is no limit."""
    found = [one.memory_left for one in _own_cgroups("memory", proc)]
    return min((left for left in found if left is not None), default=None)


def oom_kills(proc: Path = PROC) -> int | None:
    """How many processes of our cgroup were OOM-killed; None if the kernel does not count them."""
    return next((found for one in _own_cgroups("memory", proc) if (found := one.oom_kills) is not None), None)


def _own_cgroups(controller: str, proc: Path) -> Iterator[Cgroup]:
    """The cgroups of either version that this process is in, the innermost first."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # Version 1: `4:memory:/a/b`; version 2: `0::/a/b`.
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        is_v2 = not controllers
        if not is_v2 and controller not in controllers.split(","):
            continue
        for mount in mounts:
            if (found := _hierarchy_of_mount(mount, is_v2, controller)) is not None:
                yield from (Cgroup(folder=folder, is_v2=is_v2) for folder in _with_ancestors(path, *found))
                break


def _hierarchy_of_mount(line: str, is_v2: bool, controller: str) -> tuple[PurePosixPath, Path] | None:
    """The root and the mount point in a line of mountinfo; None if it mounts another hierarchy."""
    before, _, after = line.partition(" - ")
    kind, _, options = (*after.split(" "), "", "", "")[:3]
    if kind != ("cgroup2" if is_v2 else "cgroup") or not (is_v2 or controller in options.split(",")):
        return None
    root, point = (_ESCAPED.sub(lambda match: chr(int(match[1], 8)), word) for word in before.split(" ")[3:5])
    return PurePosixPath(root), Path(point)


def _with_ancestors(path: str, root: PurePosixPath, point: Path) -> list[Path]:
    """The folders of a cgroup and of its ancestors, as far up as the mount shows them.

    In a container without a cgroup namespace, `path` is the host's path and the mount shows only its end.
    """
    inside = PurePosixPath(path)
    parts = inside.relative_to(root).parts if inside.is_relative_to(root) else ()
    # A process outside its namespace's root has a path that begins with `..`: no folder here.
    parts = () if ".." in parts else parts
    return [point.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]
