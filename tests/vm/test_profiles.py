"""Profiles in real guests: each does what it promises, on both architectures and together."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.vm.conftest import Quizmatrix, Sweep

Run = Callable[..., Sweep]


def outputs(done: Sweep) -> dict[str, str]:
    """What the command printed in each cell, by architecture."""
    found = {}
    for arch, cell in done.cells.items():
        folder = done.folder / cell["cell"]
        assert cell["outcome"] == "passed", (cell["detail"], (folder / "stderr").read_text())
        found[arch] = (folder / "stdout").read_text()
    return found


def test_memory_devices_and_disks(sweep: Run) -> None:
    script = """set -e
        for device in quizm0 quizm5 quizb0 quizb1; do
            dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null
            dd if=/tmp/x of=/dev/$device bs=64k seek=8 2>/dev/null
            dd if=/dev/$device bs=64k skip=8 count=16 2>/dev/null | cmp - /tmp/x
            blockdev --getsize64 /dev/$device
        done
        [ ! -e /dev/quizm6 ]; [ ! -e /dev/quizb2 ]
        dd if=/dev/quizb0 of=/dev/null bs=64k count=1 skip=64 2>&1 | grep -c 'Input/output error'
        echo $QUIZMATRIX_PROFILES"""
    options = ("-p", "memdev:count=6,size=32M,blockdev:size=64M,fails=read,fails-at=4M")
    sizes = [32 << 20] * 2 + [64 << 20] * 2
    done = sweep(script, options=options)
    for said in outputs(done).values():
        assert said.split() == [*map(str, sizes), "1", "memdev,blockdev"]
    for cell in done.cells.values():
        assert cell["profiles"] == ["memdev", "blockdev"]
        assert {"layers", "machine", "profile memdev", "profile blockdev"} <= set(cell["timings"]["steps"])
        assert not list((done.folder / cell["cell"]).rglob("*.raw"))


def test_a_network(sweep: Run) -> None:
    script = "ping -c 1 -w 20 10.0.2.2 >/dev/null && cat /etc/resolv.conf"
    assert set(outputs(sweep(script, options=("-p", "net"))).values()) == {"nameserver 10.0.2.3\n"}


def test_a_profile_that_fails(quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "config/profiles/mine"
    own.mkdir(parents=True)
    (own / "profile.toml").write_text('summary = "fails"\n')
    (own / "init").write_text("echo first; echo 'the \"last\"' >&2; exit 7\n")
    more = environment | {"QUIZMATRIX_CONFIG_DIR": str(tmp_path / "config")}
    done = quizmatrix("run", "--only", "6.1-x86_64", "-p", "mine", "--", "echo ran", env=more)
    assert done.returncode == 125
    assert done.stdout == b""
    assert b'first\nthe "last"\n' in done.stderr
    assert b"the profile mine failed with 7: the last" in done.stderr


def test_files_environment_and_binds(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "config/profiles/mine"
    (own / "files/etc").mkdir(parents=True)
    (own / "files/etc/mine").write_text("of the profile\n")
    (own / "profile.toml").write_text('summary = "has files"\n')
    half = '{"environment": {"A": "a b"}, "files": {"etc/more": "x\\n"}}'
    (own / "setup").write_text(f"printf %s '{half}'\n")
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out").chmod(0o777)
    here = tmp_path / "here"
    here.chmod(0o777)
    (tmp_path / "in/file").write_text("bound\n")
    script = """cat /etc/mine /etc/more '/mnt/put in\\040'/file; echo "$A,$B"; id -un
        echo through >typed_in; echo back >/mnt/out/file
        echo no 2>/dev/null >'/mnt/put in\\040'/no || echo refused"""
    done = quizmatrix(
        *("run", "--only", "6.1-s390x", "-p", "mine", "--env", "B=c d", "--user", "nobody"),
        *("--bind", f"{tmp_path}/in:/mnt/put in\\040:ro", "--bind", f"{tmp_path}/out:/mnt/out"),
        *("--bind", f"{here}:{here}", "--", script),
        env=environment | {"QUIZMATRIX_CONFIG_DIR": str(tmp_path / "config")},
    )
    assert done.stdout.decode().splitlines() == [
        "of the profile",
        "x",
        "bound",
        "a b,c d",
        "nobody",
        "refused",
    ]
    assert (tmp_path / "out/file").read_text() == "back\n"
    assert (here / "typed_in").read_text() == "through\n"


def test_the_memory_of_a_kernel_that_panics(sweep: Run) -> None:
    script = "[ -e /sys/kernel ] && echo c >/proc/sysrq-trigger; sleep 100"
    done = sweep(script, options=("-p", "debug", "--memory", "256M"))
    for cell in done.cells.values():
        assert cell["outcome"] == "panicked", cell["detail"]
        assert "its memory is in artifacts/vmcore" in cell["detail"]
        core = (done.folder / cell["cell"] / "artifacts/vmcore").read_bytes()
        # kdump-compressed (makedumpfile(8)), or ELF where the machine has no other.
        assert core.startswith((b"KDUMP   ", b"\x7fELF", b"makedumpfile"))
        assert len(core) > 1 << 20
        assert json.loads((done.folder / cell["cell"] / "memory.json").read_bytes())["size"] == 256


def test_a_debugger_that_is_waited_for(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    argv = [
        *("run", "--only", "6.1-s390x", "-p", "debug:stop=yes", "--output", str(folder), "--", "echo ran")
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "quizmatrix", *argv], env=environment, stdout=subprocess.PIPE
    ) as child:
        with connected(folder / "6.1-s390x/gdb.sock") as gdb:
            # GDB's remote protocol: ask why it stopped, and continue.
            assert ask_gdb(gdb, b"?").startswith(b"T05")
            assert (folder / "6.1-s390x/console.log").read_bytes() == b""
            assert ask_gdb(gdb, b"D") == b"OK"
        assert child.communicate()[0] == b"ran\n"
    assert child.returncode == 0
    assert "target remote" in (folder / "6.1-s390x/gdb.sh").read_text()
    assert not (folder / "6.1-s390x/gdb.sock").exists()


def connected(path: Path) -> socket.socket:
    """Connect to a socket, once it exists."""
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            link.close()
            time.sleep(0.05)
        else:
            return link


def ask_gdb(link: socket.socket, packet: bytes) -> bytes:
    """The answer of QEMU's gdb stub."""
    link.sendall(b"$%s#%02x" % (packet, sum(packet) % 256))
    answer = b""
    while not re.search(rb"#..$", answer):
        answer += link.recv(4096)
    link.sendall(b"+")
    return answer.partition(b"$")[2].partition(b"#")[0]
