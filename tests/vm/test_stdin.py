"""The command's standard input, as over ssh."""

import contextlib
import hashlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quizmatrix.schedule.command_stdin import KEPT
from tests.vm.conftest import ARCHES, KERNEL, Quizmatrix, Sweep
from tests.vm.test_single import only

CELLS = [f"{KERNEL}-{arch}" for arch in ARCHES]

# Every byte value, without a newline at the end, and more than any buffer on the way holds.
BYTES = bytes(range(256)) + hashlib.shake_256(b"stdin").digest(3_000_000) + b"\n\0\xff"


@pytest.mark.parametrize("cell", CELLS)
def test_every_byte_and_the_end_arrive(cell: str, quizmatrix: Quizmatrix) -> None:
    done = quizmatrix(*only(cell, "cat; cat; echo the end >&2"), input=BYTES)
    assert done.stdout == BYTES
    assert (done.returncode, done.stderr) == (0, b"the end\n")


def test_a_script_and_nothing(quizmatrix: Quizmatrix) -> None:
    assert quizmatrix(*only("6.1-x86_64", "sh"), input=b"exit 7\n").returncode == 7
    done = quizmatrix(*only("6.1-x86_64", "cat; readlink /proc/self/fd/0"), input=b"")
    assert done.returncode == 0
    assert done.stdout.startswith(b"pipe:")
    # Opened anew by another user when all was read.
    script, options = "cat; sleep 1; cat /dev/stdin", ("--user", "nobody")
    done = quizmatrix(*only("6.1-x86_64", script, options=options), input=b"all")
    assert (done.returncode, done.stdout) == (0, b"all")


def test_what_is_not_read(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """A pipe that stays open: a command that does not read it ends at once, one that does waits."""
    silent, writer = os.pipe()
    try:
        done = quizmatrix(*only("6.1-x86_64", "echo here; exit 3"), stdin=silent)
        assert (done.returncode, done.stdout) == (3, b"here\n")
        assert (
            quizmatrix(*only("6.1-x86_64", "cat", options=("--timeout", "500ms")), stdin=silent).returncode
            == 124
        )
        # With --no-stdin nothing is read from it.
        os.write(writer, b"mine")
        done = quizmatrix(
            *only("6.1-x86_64", "cat; readlink /proc/self/fd/0", options=("--no-stdin",)), stdin=silent
        )
        assert (done.returncode, done.stdout) == (0, b"/dev/null\n")
        assert os.read(silent, 100) == b"mine"
    finally:
        os.close(writer)
        os.close(silent)


def test_a_reader_that_stops_early(environment: dict[str, str], tmp_path: Path) -> None:
    """An endless writer gets SIGPIPE while the command still runs."""
    script = "head -c 3; exec <&-; until [ -e /shared/go ]; do sleep 0.1; done"
    argv = [sys.executable, "-m", "quizmatrix", *only("6.1-x86_64", script, options=("--output", "run"))]
    reader, writer = os.pipe()
    with subprocess.Popen(
        argv, stdin=reader, stdout=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as process:
        os.close(reader)
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(writer, b"y\n" * 1000)
        assert process.poll() is None
        (tmp_path / "run/6.1-x86_64/artifacts/go").touch()
        assert process.stdout.read() == b"y\ny"
        assert process.wait(60) == 0
    os.close(writer)


def test_a_command_that_ends_before_its_input(environment: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "quizmatrix", *only("6.1-x86_64", "head -c 3; exit 5")]
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as writer:
        done = subprocess.run(
            argv, stdin=writer.stdout, capture_output=True, env=environment, cwd=tmp_path, check=False
        )
        assert writer.stdout is not None
        writer.stdout.close()
        assert (done.returncode, done.stdout) == (5, b"y\ny")
        assert writer.wait(20) != 0


def test_several_cells_read_the_same_or_nothing(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BYTES)
    with (tmp_path / "file").open("rb") as file:
        run = sweep("cat; readlink /proc/self/fd/0", stdin=file)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
    assert {(run.folder / cell / "stdout").read_bytes() for cell in CELLS} == {b"/dev/null\n"}


@pytest.mark.parametrize("given", ["file", "-"])
def test_one_input_for_all(given: str, sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    (tmp_path / "here/file").write_bytes(BYTES)
    run = sweep("cat", options=("--stdin", given), **({"input": BYTES} if given == "-" else {}))
    for cell in CELLS:
        assert (run.folder / cell / "stdout").read_bytes() == BYTES
    assert (run.folder / KEPT).exists() == (given == "-")
    if given == "-":
        done = subprocess.run(
            [run.folder / CELLS[0] / "reproduce.sh"], capture_output=True, check=False, timeout=200
        )
        assert BYTES in done.stdout, done.stderr


def test_a_terminal_is_read_line_by_line_and_ctrl_c_stops(
    environment: dict[str, str], tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "quizmatrix", *only("6.1-x86_64", "echo up; cat; echo over; sleep 600")]
    pid, terminal = pty.fork()
    if pid == 0:
        # If the tests run in the background, SIGINT is ignored, and quizmatrix would inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.chdir(tmp_path)
        os.execve(sys.executable, argv, environment)  # noqa: S606
    said, ended = b"", 0

    def wait_for(words: bytes) -> None:
        nonlocal said
        while words not in said:
            said += os.read(terminal, 1000)

    try:
        wait_for(b"up\r\n")
        os.write(terminal, b"typed\n")
        wait_for(b"typed\r\ntyped\r\n")  # the terminal's echo, and the guest's
        os.write(terminal, b"\x04")
        wait_for(b"over\r\n")
        os.write(terminal, b"\x03")
        until = time.monotonic() + 60
        status = 0
        while not ended and time.monotonic() < until:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)
        assert ended
        assert os.waitstatus_to_exitcode(status) == 130, said
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
