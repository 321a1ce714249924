"""The guest's machine: kernel parameters, devices, CPUs."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quizmatrix.kernel import buildlayer
from tests.vm.conftest import Quizmatrix, Sweep

Run = Callable[..., Sweep]


def test_kernel_parameters(sweep: Run) -> None:
    words = ["slub_debug=FZP loglevel=7", 'quizmatrix.text="two  words"']
    script = "cat /proc/cmdline; cut -f1 /proc/sys/kernel/printk"
    done = sweep(script, options=("--append", words[0], "--append", words[1]))
    for cell in done.cells.values():
        folder = done.folder / cell["cell"]
        line, level = (folder / "stdout").read_text().splitlines()
        assert line.endswith(" ".join(words))
        assert level == "7"
        assert cell["append"] == " ".join(words)
        script = (folder / "reproduce.sh").read_text()
        assert " ".join(f"--append '{text}'" for text in words) in script
        assert f"oops=panic {' '.join(words)}'" in script


# The guest reads files before the host changes them, and then checks what it finds.
LOOK = """
    look() {
        cat grows shrinks replaced 2>&1; wc -c <grows; ./program
    }
    for place in "$PWD" /usr/share/layer /mnt/bound; do
        cd $place; look >/dev/null; cat removed folder/file became >/dev/null; [ ! -e made ]; ls >/dev/null
    done
    echo ready
    until [ -e /mnt/bound/made ]; do sleep 1; done
    sleep $2
    for place in "$1" /usr/share/layer /mnt/bound; do
        cd $place; look
    done
    # Names are found within two seconds, and a little more where the host is busy.
    for place in "$1" /usr/share/layer; do
        cd $place
        tries=0
        until [ -e made ] && [ ! -e removed ] || [ $tries = 20 ]; do sleep 1; tries=$((tries + 1)); done
        ls; cat made became/file
        echo again >removed; cat removed; mkdir folder; ls folder
    done
"""


# 6.12 keeps for two seconds what it has read.
@pytest.mark.parametrize(("cell", "seconds"), [("6.1-x86_64", 0), ("6.1-s390x", 0), ("6.12-x86_64", 6)])
def test_a_host_that_edits_while_the_guest_runs(
    cell: str, seconds: int, environment: dict[str, str], tmp_path: Path
) -> None:
    here, layer, bound = (tmp_path / name for name in ("here", "layer", "bound"))
    places = [here, layer / "usr/share/layer", bound]
    for place in places:
        (place / "folder").mkdir(parents=True)
        for name in ("grows", "shrinks", "replaced", "removed", "folder/file", "became"):
            (place / name).write_text("as it was\n")
        (place / "program").write_text("#!/bin/sh\necho old\n")
        (place / "program").chmod(0o755)
        # 6.12 misses the second of two changes within a second that keep the length (docs/how-it-works.md).
        for name in ("grows", "shrinks", "replaced", "program"):
            os.utime(place / name, (0, 0))
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", cell]
    argv += ["--layer", str(layer), "--bind", f"{bound}:/mnt/bound", "--"]
    with subprocess.Popen(
        [*argv, "sh", "-c", LOOK, "sh", str(here), str(seconds)],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=here,
        text=True,
    ) as guest:
        assert guest.stdout is not None
        first = guest.stdout.readline()
        if first != "ready\n":
            guest.terminate()
        assert first == "ready\n"
        for place in places:
            (place / "grows").write_text("longer than it ever was\n")
            (place / "shrinks").write_text("short\n")
            (place / "program").write_text("#!/bin/sh\necho new\n")
            (place / "beside").write_text("put in its place\n")
            (place / "beside").replace(place / "replaced")
            (place / "removed").unlink()
            shutil.rmtree(place / "folder")
            (place / "became").unlink()
            (place / "became").mkdir()
            (place / "became/file").write_text("in a folder\n")
            (place / "made").write_text("made\n")
        said = guest.stdout.read().splitlines()
    contents = ["longer than it ever was", "short", "put in its place", "24", "new"]
    names = ["became", "grows", "made", "program", "replaced", "shrinks"]
    assert said == contents * 3 + [*names, "made", "in a folder", "again"] * 2
    assert not (here / "removed").exists()
    assert guest.returncode == 0


def test_as_many_devices_as_there_is_room_for(sweep: Run, tmp_path: Path) -> None:
    binds: list[str] = []
    # What was built for a kernel, as OpenZFS by another test, is one folder more.
    folders = 29 if buildlayer.kernels() else 30
    for number in range(folders):
        (tmp_path / f"{number}").mkdir()
        binds += ["--bind", f"{tmp_path / str(number)}:/mnt/{number}"]
    # With the ports, the network, and the kernel's, the run's, the work tree's folder and /shared: 64.
    options = ("-p", "net,blockdev:count=28,size=1M", *binds)
    script = f"""set -e
        for number in $(seq 0 27); do echo disk $number | dd of=/dev/quizb$number 2>/dev/null; done
        for number in $(seq 0 27); do head -n 1 /dev/quizb$number; done
        for number in $(seq 0 {folders - 1}); do echo $number >/mnt/$number/file; done
        ping -c 1 -w 20 10.0.2.2 >/dev/null"""
    done = sweep(script, options=options)
    for cell in done.cells.values():
        said = (done.folder / cell["cell"] / "stdout").read_text().splitlines()
        assert cell["outcome"] == "passed", cell["detail"]
        assert said == [f"disk {number}" for number in range(28)]
    assert [(tmp_path / f"{number}/file").read_text() for number in range(folders)] == [
        f"{number}\n" for number in range(folders)
    ]


def test_more_devices_than_there_is_room_for(quizmatrix: Quizmatrix) -> None:
    argv = ["run", "--only", "6.1-x86_64", "--offline", "-p", "blockdev:count=60,size=1M", "--", "true"]
    done = quizmatrix(*argv)
    assert done.returncode == 125
    assert re.search(
        rb"6.1-x86_64 would have 6[56] devices, and a guest has room for 64: 60 disks", done.stderr
    )


def test_disks_on_scsi(sweep: Run) -> None:
    script = """set -e
        for number in 0 1 2; do
            disk=$(readlink /dev/quizb$number); cat /sys/block/$disk/queue/logical_block_size
            echo $number | dd of=/dev/quizb$number bs=4096 conv=sync 2>/dev/null; head -c 1 /dev/quizb$number
            case $disk in sd*) ;; *) exit 9 ;; esac
        done"""
    done = sweep(script, options=("-p", "blockdev:bus=scsi,count=3,size=32M,sector=4096"))
    for cell in done.cells.values():
        said = (done.folder / cell["cell"] / "stdout").read_text()
        assert (cell["outcome"], said) == ("passed", "4096\n04096\n14096\n2"), cell["detail"]


def test_code_that_one_cpu_replaces_while_another_runs_it(quizmatrix: Quizmatrix) -> None:
    """x86_64 patches code through a breakpoint; see `threads-from` in arch/x86_64.toml. The file that is
    written switches static keys of the scheduler.
    """
    script = """
        (while :; do sleep 0.001; done) & (while :; do sleep 0.001; done) &
        for _ in $(seq 150); do
            echo 1 >/proc/sys/kernel/sched_schedstats; echo 0 >/proc/sys/kernel/sched_schedstats
        done
        kill %1 %2; nproc"""
    done = quizmatrix("run", "--only", "newest-x86_64", "--cpus", "2", "--", script)
    assert done.stdout.decode().split() == ["2"], done.stderr.decode()
    assert done.returncode == 0


def test_zoned_nvme_nodes_and_more_of_qemu(quizmatrix: Quizmatrix) -> None:
    script = """set -e
        for number in 0 1; do
            disk=$(readlink /dev/quizb$number); cat /sys/block/$disk/queue/zoned
            cat /sys/block/$disk/queue/chunk_sectors /sys/block/$disk/queue/logical_block_size
        done
        cat /sys/devices/system/node/node*/cpulist
        modprobe virtio-rng; cat /sys/class/misc/hw_random/rng_available"""
    options = ["--qemu", "-device virtio-rng-pci,id=more", "--numa", "2", "--cpus", "4"]
    options += ["-p", "blockdev:bus=nvme,size=64M,zoned=yes,zone=8M,sector=4096"]
    done = quizmatrix("run", "--only", "6.1-x86_64", "--offline", *options, "--", script)
    disk = ["host-managed", str(8 << 11), "4096"]
    assert done.stdout.decode().split() == [*disk, *disk, "0-1", "2-3", "virtio_rng.0"], done.stderr
    assert done.returncode == 0


def test_what_a_machine_or_a_kernel_has_not(quizmatrix: Quizmatrix) -> None:
    for option, words in (
        (("-p", "blockdev:bus=nvme"), "6.1-s390x cannot have disks on nvme"),
        (("--numa", "2"), "6.1-s390x cannot have 2 NUMA nodes: QEMU's machine for s390x has none"),
        (("-p", "blockdev:zoned=yes"), "zoned needs bus=nvme"),
    ):
        done = quizmatrix("run", "--only", "6.1-s390x", "--offline", *option, "--", "true")
        assert done.returncode == 125
        assert words in done.stderr.decode()


def test_a_port_that_leads_to_the_guest(environment: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", "6.1-s390x", "--offline"]
    argv += ["-p", "net:forward=0-7000", "--", "while :; do echo from the guest | nc -l -p 7000; done"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, env=environment, cwd=tmp_path, text=True) as run:
        assert run.stderr is not None
        found = re.search(r" 127\.0\.0\.1:(\d+) leads to port 7000 of the guest", run.stderr.readline())
        assert found is not None
        said = b""
        while run.poll() is None and said != b"from the guest\n":
            # Before the guest listens, connections fail or are closed at once.
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", int(found[1])), 10) as connection,
            ):
                said = connection.recv(100)
            time.sleep(0.1)
        run.terminate()
    assert said == b"from the guest\n"
