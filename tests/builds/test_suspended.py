"""A command that waits for a disk which answers nothing: the verdict says where, on each byte order."""

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from quizmatrix.build.zfs import sysroot
from quizmatrix.build.zfs.sysroot import Sysroot
from quizmatrix.core import process
from quizmatrix.core.jobserver import JobServer
from quizmatrix.model.arch import load_arch

# Seconds; of a kernel, and emulated guests.
LIMIT = 3600

SOURCE = Path(__file__).with_name("suspend.c")
COMMAND = """set -e
modprobe dm_mod 2>/dev/null || :
modprobe ext4 2>/dev/null || :
mkdir -p /dev/mapper /tmp/disk
[ -e /dev/mapper/control ] || mknod /dev/mapper/control c 10 236
mke2fs /dev/quizb0 30000 >/dev/null
set -- $(./suspend create /dev/quizb0)
mknod /dev/mapper/disk b "$@"
mount /dev/mapper/disk /tmp/disk
./suspend
echo >/tmp/disk/file
"""


async def obtain(arch: str) -> Sysroot:
    with closing(JobServer(process.usable_cpus())) as pool:
        return await sysroot.obtain(load_arch(arch), None, pool, print)


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("6.1-x86_64", ()),
        ("6.1-s390x", ()),
        ("debian-source:6.12-ppc64", ("-e", "MD", "-e", "BLK_DEV_DM", "-e", "EXT4_FS")),
    ],
)
def test_what_waits_for_a_suspended_disk(cell: str, options: tuple[str, ...], tmp_path: Path) -> None:
    libraries = anyio.run(obtain, cell.rpartition("-")[2])
    program = tmp_path / "suspend"
    argv = [
        *libraries.compiler.split(),
        "-static",
        "-O2",
        "-Wall",
        "-Werror",
        "-o",
        str(program),
        str(SOURCE),
    ]
    subprocess.run(argv, check=True)
    output = tmp_path / "run"
    run = ["run", "--only", cell, *options, "-p", "blockdev", "--timeout", "3", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "quizmatrix", *run, "--", COMMAND],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 124, done.stderr
    (result,) = json.loads((output / "results.json").read_bytes())["cells"]
    assert result["outcome"] == "timed-out"
    # The compilers of some architectures make a function of what others put into its caller.
    waits = r"sh waits in (__wait_on_buffer \(called by )?__ext4_find_entry(, | \(called by )ext4_lookup"
    assert re.search(waits, result["detail"])
