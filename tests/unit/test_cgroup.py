"""CPU and memory limits of cgroups, read from trees laid out like the kernel's, and from a real one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import cgroup, process
from quizmatrix.core.errors import HostError
from quizmatrix.core.memory import available_memory
from quizmatrix.run import hostwatch
from quizmatrix.schedule.admission import Admission, Available, Need
from tests import cgroups

MIB = 1 << 20


def made(folder: Path, **files: object) -> None:
    """Make a cgroup's folder. memory_max: the content of its file memory.max."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


def proc_of(top: Path, cgroups: str, *mounts: str) -> Path:
    """Make /proc of a process in these cgroups. mounts: lines of mountinfo without the first three words."""
    (top / "proc/self").mkdir(parents=True)
    (top / "proc/self/cgroup").write_text(cgroups)
    lines = ["22 1 254:0 / / rw - ext4 /dev/vda rw", *(f"30 22 0:28 {mount}" for mount in mounts)]
    (top / "proc/self/mountinfo").write_text("\n".join(lines) + "\n")
    return top / "proc"


def test_version_2_every_cgroup_above_ours_counts(tmp_path: Path) -> None:
    top = tmp_path / "fs cgroup"
    made(top, cgroup_procs="1")
    made(top / "a", cpu_max="150000 100000", memory_max=1000 * MIB, memory_current=900 * MIB)
    (top / "a/memory.stat").write_text(
        f"anon {300 * MIB}\nfile {500 * MIB}\nactive_file {100 * MIB}\n"
        f"inactive_file {200 * MIB}\nslab_reclaimable {50 * MIB}\n"
    )
    made(top / "a/b", cpu_max="max 100000", memory_max="max", memory_current=300 * MIB, memory_high="max")
    made(top / "a/b", memory_events="low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0")
    proc = proc_of(tmp_path, "0::/a/b\n", f"/ {str(top).replace(' ', chr(92) + '040')} rw - cgroup2 none rw")
    assert cgroup.cpus(proc) == 1.5
    assert cgroup.memory_left(proc) == 450 * MIB
    assert cgroup.oom_kills(proc) == 2
    # A process that exceeds `high` is throttled so much that it gets nowhere.
    made(top / "a/b", memory_high=320 * MIB)
    assert cgroup.memory_left(proc) == 20 * MIB
    # The limit was lowered below what is used.
    made(top / "a/b", memory_max=100 * MIB)
    assert cgroup.memory_left(proc) == 0


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    cpu, memory = tmp_path / "cpu,cpuacct", tmp_path / "memory"
    made(cpu, cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    made(cpu / "pod", cpu_cfs_quota_us=250000, cpu_cfs_period_us=50000)
    made(memory, memory_limit_in_bytes=9223372036854771712, memory_usage_in_bytes=9000 * MIB)
    made(memory / "pod", memory_limit_in_bytes=512 * MIB, memory_usage_in_bytes=500 * MIB)
    # Its own memory, and that of the cgroups below it.
    (memory / "pod/memory.stat").write_text(
        f"inactive_file 0\nactive_file 0\ntotal_inactive_file {64 * MIB}\ntotal_active_file {36 * MIB}\n"
    )
    made(memory / "pod/1", memory_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 4")
    proc = proc_of(
        tmp_path,
        "5:memory:/pod/1\n3:cpu,cpuacct:/pod/1\n1:name=systemd:/x\n0::/\n",
        f"/ {tmp_path}/unified rw - cgroup2 cgroup2 rw",
        f"/ {cpu} rw shared:3 - cgroup cgroup rw,cpu,cpuacct",
        f"/ {memory} rw shared:4 master:1 - cgroup cgroup rw,memory",
    )
    assert cgroup.cpus(proc) == 5
    assert cgroup.memory_left(proc) == 112 * MIB
    assert cgroup.oom_kills(proc) == 4


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/docker/4711", "/docker/4711"),  # as of old: the host's path, and a mount of that part alone
        ("/", "/"),  # with a namespace of its own
        ("/../..", "/"),  # put into another's namespace
        ("/elsewhere", "/docker/4711"),  # a mount that shows another part
    ],
)
def test_what_a_container_sees_of_its_cgroup(tmp_path: Path, path: str, root: str) -> None:
    top = tmp_path / "cgroup"
    made(top, cpu_max="200000 100000", memory_max=4096 * MIB, memory_current=96 * MIB)
    proc = proc_of(tmp_path, f"0::{path}\n", f"{root} {top} rw - cgroup2 none rw")
    assert cgroup.cpus(proc) == 2
    assert cgroup.memory_left(proc) == 4000 * MIB


def test_a_host_without_limits(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    assert cgroup.cpus(nothing) is None
    assert cgroup.memory_left(nothing) is None
    assert cgroup.oom_kills(nothing) is None
    mounts = ("", "/ / - cgroup2", f"/ {tmp_path} rw - cgroup2 n rw")
    rubbish = proc_of(tmp_path, "\n0\n7:memory\n0::/x\n", *mounts)
    made(tmp_path / "x", cpu_max="max", memory_max="", memory_events="oom_kill")
    assert cgroup.cpus(rubbish) is None
    assert cgroup.memory_left(rubbish) is None
    assert cgroup.oom_kills(rubbish) is None


def test_what_is_short_is_the_cgroups() -> None:
    little = Available(memory=100, is_of_cgroup=True)

    async def enter() -> None:
        admission = Admission(cpus=1, memory=1, places=1, look=lambda: little, patience=-1)
        await admission.enter(Need(cpus=1, memory=512))

    with pytest.raises(HostError, match="100 MiB of memory left within the limit of its cgroup"):
        anyio.run(enter)


@pytest.fixture
def limited() -> Iterator[list[Path]]:
    """The folders of a real cgroup (version 1) with one CPU and 512 MiB, if this host lets us make one."""
    with cgroups.of_version_1(memory=512 * MIB) as folders:
        yield folders


def inside(folders: list[Path], script: str) -> subprocess.CompletedProcess[str]:
    """Run Python in these cgroups."""
    argv = cgroups.entered(folders, [sys.executable, "-c", script])
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_real_cgroup_of_version_1(limited: list[Path], tmp_path: Path) -> None:
    look = (
        "from quizmatrix.core import memory, process, squashfs\n"
        "from quizmatrix.run import hostwatch\n"
        "print(process.usable_cpus(), memory.available_memory(), hostwatch.now().oom_kills)\n"
        "print(*squashfs.limits())"
    )
    said = inside(limited, look).stdout.split()
    cpus, memory, kills = map(int, said[:3])
    assert cpus == 1
    # Programs that would by default use all CPUs and a share of the host's memory.
    assert said[3:6] == ["-processors", "1", "-mem"]
    assert int(said[6].removesuffix("M")) <= 128
    assert 400 < memory <= 512
    assert kills == 0
    # The page cache can be freed, so it is not used memory; a program's memory is.
    big = tmp_path / "big"
    reads = f"data = open({str(big)!r}, 'wb'); [data.write(bytes(1 << 20)) for _ in range(300)]\n"
    keeps = "kept = bytearray(b'x') * (200 << 20)\n"
    after_reading = int(inside(limited, reads + look).stdout.split()[1])
    assert after_reading > 350
    assert int(inside(limited, keeps + look).stdout.split()[1]) < 512 - 200
    # A process killed by the cgroup's limit counts for processes inside it only.
    before = hostwatch.now().oom_kills
    killed = inside(limited, "kept = bytearray(b'x') * (600 << 20)")
    assert killed.returncode == -signal.SIGKILL
    assert int(inside(limited, look).stdout.split()[2]) == 1
    assert hostwatch.now().oom_kills == before
    assert process.usable_cpus() == len(os.sched_getaffinity(0)) or cgroup.cpus() is not None
    assert available_memory() > 0
