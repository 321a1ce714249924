"""One cell behaves like running the command here."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vm.conftest import ARCHES, Quizmatrix

CELLS = [f"6.1-{arch}" for arch in ARCHES]


def only(cell: str, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    """The arguments of a run of one cell."""
    return ["run", "--only", cell, "--offline", *options, "--", *command]


@pytest.mark.parametrize("cell", CELLS)
def test_streams_are_exact(cell: str, quizmatrix: Quizmatrix) -> None:
    """Every byte value, nothing added, no newline at the end, nothing mixed up."""
    octal = "".join(f"\\{number:03o}" for number in range(256))
    done = quizmatrix(*only(cell, f"printf '{octal}'; printf 'to stderr' >&2; exit 7"))
    assert done.stdout == bytes(range(256))
    assert done.stderr == b"to stderr"
    assert done.returncode == 7


def test_a_hundred_megabytes_arrive(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    size = 100 << 20
    (tmp_path / "here/data").write_bytes(hashlib.shake_256(b"quizmatrix").digest(1 << 20))
    done = quizmatrix(*only("6.1-x86_64", "n=100; while [ $n -gt 0 ]; do cat data; n=$((n-1)); done"))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == size
    assert done.stdout == (tmp_path / "here/data").read_bytes() * 100


@pytest.mark.parametrize("cell", CELLS)
def test_the_guest_feels_like_home(cell: str, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "with space").mkdir()
    (here / "with space/tool.sh").write_text('#!/bin/sh\necho "tool: $1"\n')
    (here / "with space/tool.sh").chmod(0o755)
    script = """set -e
        hostname; id -un; pwd; [ "$HOME" = /root ]
        './with space/tool.sh' 'a  b'
        [ -d /proc/1 ]; [ -e /dev/null ]; [ -d /sys/kernel ]; echo x >/dev/shm/x; touch /tmp/x
        [ $(stat -c %a /tmp) = 1777 ]; grep -q root /etc/passwd; ls /lib/modules
        echo written >here.txt; cat here.txt; cat; echo kept >/shared/kept
        echo $QUIZMATRIX_CELL $QUIZMATRIX_KERNEL $QUIZMATRIX_ARCH; ip -o link show lo | grep -c UP"""
    done = quizmatrix(*only(cell, script), input=b"never read")
    assert done.stderr == b""
    arch = cell.removeprefix("6.1-")
    lines = done.stdout.decode().splitlines()
    assert lines[:4] == [cell.replace(".", "_"), "root", str(here), "tool: a  b"]
    assert lines[4].startswith("6.1.")
    assert lines[5:] == ["written", f"{cell} 6.1 {arch}", "1"]
    assert not (here / "here.txt").exists()
    kept = tmp_path / "state/runs/latest" / cell / "artifacts/kept"
    assert kept.read_text() == "kept\n"


def test_words_reach_the_guest_as_they_were_given(quizmatrix: Quizmatrix) -> None:
    words = ["a b", "$HOME", "*", 'say "it"', "it's", "new\nline", "", "\\n", "ü", "-x", "&", "`id`"]
    done = quizmatrix(*only("6.1-x86_64", "printf", "[%s]", *words))
    assert done.stdout.decode() == "".join(f"[{word}]" for word in words)
    done = quizmatrix(*only("6.1-x86_64", "printf", "%s", os.fsdecode(b"\xff\xfe")))
    assert done.stdout == b"\xff\xfe"
    done = quizmatrix(*only("6.1-x86_64", "false", "||", "echo", "a;b", "|", "tr", "a", "c"))
    assert done.stdout == b"c;b\n"


def test_modules_load_and_layers_are_laid_over(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "usr/bin").mkdir(parents=True)
    (layer / "usr/bin/hello").write_text("#!/bin/sh\necho from the layer\n")
    (layer / "usr/bin/hello").chmod(0o755)
    script = "modprobe loop && grep -c ^loop /proc/modules && hello; echo no >/usr/bin/hello; rm /etc/passwd"
    for _ in range(2):
        done = quizmatrix(*only("6.1-x86_64", script, options=("--layer", str(layer))))
        assert done.stdout == b"1\nfrom the layer\n", done.stderr
    assert "from the layer" in (layer / "usr/bin/hello").read_text()


@pytest.mark.parametrize("cell", CELLS)
def test_reproduce_by_hand(cell: str, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    quizmatrix(*only(cell, "echo out of; echo the guest >&2; exit 5", options=("--output", "run")))
    script = tmp_path / "here/run" / cell / "reproduce.sh"
    done = subprocess.run([script], capture_output=True, check=False, timeout=120)
    assert b"out of\n" in done.stdout, done
    assert b"the guest\n" in done.stderr, done
    assert b'"exit_code":5' in done.stderr, done


def test_what_did_not_pass_is_explained(quizmatrix: Quizmatrix) -> None:
    done = quizmatrix(*only("6.1-x86_64", "echo c >/proc/sysrq-trigger"))
    assert done.returncode == 1
    assert done.stdout == b""
    said = done.stderr.decode()
    assert "6.1-x86_64: panicked: sysrq triggered crash" in said
    assert "Kernel panic - not syncing" in said
    assert "logs: " in said


def test_a_reader_that_leaves_ends_the_run(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quizmatrix", *only("6.1-x86_64", "yes")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(60) == 141


def test_a_slow_reader_loses_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    """The command ends while nobody reads: what it wrote waits, as in a pager."""
    command = [sys.executable, "-m", "quizmatrix", *only("6.1-x86_64", "yes | head -c 3000000")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"y\n"
        time.sleep(15)  # longer than the end of the output is waited for
        assert len(process.stdout.read()) == 3_000_000 - 2
        assert process.wait(60) == 0


def test_closed_streams(environment: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "quizmatrix", *only("6.1-x86_64", "echo x; exit 4")]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], cwd=tmp_path, check=False, env=environment
    )
    assert done.returncode == 4
