"""Runs in a guest with cgroup version 2 (see test_cgroup): the limits that quizmatrix reads there.

Its arguments: the folder of the package, then what to look at; without that, all of it.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from quizmatrix.core import cgroup

MIB = 1 << 20
TOP = Path("/sys/fs/cgroup")


def write(name: str, text: str) -> None:
    """Write a cgroup file."""
    (TOP / name).write_text(text)


def number(name: str) -> int:
    """Read a cgroup file."""
    return int((TOP / name).read_text())


def inside(what: str, *, by: tuple[str, ...] = ()) -> int:
    """Run this program in the cgroup a/b; returns its exit status."""
    enter = f'echo $$ >{TOP}/a/b/cgroup.procs; exec "$@"'
    argv = ["sh", "-c", enter, "sh", *by, sys.executable, __file__, sys.argv[1], what]
    return subprocess.run(argv, check=False).returncode


def everything() -> None:
    """The limits belong to `a`, the processes to `a/b`."""
    assert cgroup.cpus() is None
    assert cgroup.memory_left() is None
    write("cgroup.subtree_control", "+cpu +memory")
    (TOP / "a/b").mkdir(parents=True)
    write("a/cgroup.subtree_control", "+cpu +memory")
    write("a/cpu.max", "150000 100000")
    write("a/memory.max", str(200 * MIB))
    for what in ("look", "cache", "keep"):
        assert inside(what) == 0, what
    assert inside("burst") == -9
    assert inside("killed") == 0
    # As in a container: a cgroup namespace in which a/b is the root.
    assert inside("namespace", by=("unshare", "--cgroup", "--mount")) == 0
    assert cgroup.oom_kills() is None, "the real top counts none"
    print("all of it")


def look() -> None:
    """At the start."""
    assert cgroup.cpus() == 1.5
    assert 150 * MIB < (cgroup.memory_left() or 0) <= 200 * MIB
    assert cgroup.oom_kills() == 0


def cache() -> None:
    """What was written to a disk stays in the page cache, and does not count."""
    with Path("/mnt/big").open("wb") as file:
        for _ in range(120):
            file.write(bytes(MIB))
        file.flush()
        os.fsync(file.fileno())
    assert number("a/memory.current") > 100 * MIB
    assert (cgroup.memory_left() or 0) > 150 * MIB


def keep() -> None:
    """A program's memory counts."""
    kept = bytearray(b"x") * (100 * MIB)
    assert (cgroup.memory_left() or 0) < 100 * MIB
    del kept


def burst() -> None:
    """A program that takes more than the limit is killed."""
    kept = bytearray(b"x") * (400 * MIB)
    del kept


def killed() -> None:
    """The kill is counted."""
    assert cgroup.oom_kills() == 1


def namespace() -> None:
    """In the namespace only the limits of `a/b` can be seen, not those of `a`."""
    write("a/b/cpu.max", "50000 100000")
    write("a/b/memory.max", str(100 * MIB))
    subprocess.run(["umount", TOP], check=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", TOP], check=True)
    assert Path("/proc/self/cgroup").read_text().strip() == "0::/"
    assert cgroup.cpus() == 0.5
    assert 0 < (cgroup.memory_left() or 0) <= 100 * MIB
    assert cgroup.oom_kills() == 1


if __name__ == "__main__":
    globals()[(sys.argv[2:] or ["everything"])[0]]()
