"""Disks handed from cell to cell, with real guests of both byte orders."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Quizmatrix

# Up to ten boots, two at a time.
pytestmark = pytest.mark.timeout(900)

X86, S390X = "6.1-x86_64", "6.1-s390x"


class Handed:
    """A finished run of a matrix with [handoff]."""

    def __init__(self, done: subprocess.CompletedProcess[bytes], folder: Path) -> None:
        self.status = done.returncode
        self.report = done.stdout.decode()
        self.said = done.stderr.decode()
        self.folder = folder
        self.cells: dict[str, dict[str, Any]] = {
            cell["cell"]: cell for cell in json.loads((folder / "results.json").read_bytes())["cells"]
        }

    @property
    def outcomes(self) -> dict[str, str]:
        return {name: cell["outcome"] for name, cell in self.cells.items()}

    @property
    def disks(self) -> list[str]:
        """The folders of disks that remain after the run."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.glob("*/disks"))

    def stdout(self, name: str) -> str:
        return (self.folder / name / "stdout").read_text()


Run = Callable[..., Handed]


def matrix(folder: Path, **keys: Any) -> Path:
    """A matrix of 6.1 on both architectures that hands on two disks of 8 MiB."""
    path = folder / "m.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"disks": 2, "size": "8M", **keys}.items()]
    text = 'kernels = ["6.1"]\narches = ["x86_64", "s390x"]\n[handoff]\n' + "\n".join(lines) + "\n"
    path.write_text(text)
    return path


@pytest.fixture
def hand_on(tmp_path: Path, quizmatrix: Quizmatrix) -> Run:
    """Runs a matrix whose [handoff] has these keys."""

    def run(*options: str, **keys: Any) -> Handed:
        path = matrix(tmp_path, **keys)
        done = quizmatrix("run", str(path), "--offline", "--output", str(tmp_path / "run"), *options)
        assert (tmp_path / "run").exists(), done.stderr.decode()
        return Handed(done, tmp_path / "run")

    return run


# The number 0x0102 in this machine's byte order.
WRITE = r"""
    set -e
    [ "$QUIZMATRIX_HANDOFF $QUIZMATRIX_WRITER" = "write $QUIZMATRIX_CELL" ]
    [ "$(printf '\1\2' | od -An -tx2)" = " 0102" ] && bytes='\1\2' || bytes='\2\1'
    printf $bytes | dd of=/dev/quizh0 conv=notrunc 2>/dev/null
    echo $QUIZMATRIX_CELL >/dev/quizh1
"""
READ = """
    read -r writer </dev/quizh1
    [ "$writer" = $QUIZMATRIX_WRITER ] || exit 3
    found=$(dd if=/dev/quizh0 bs=2 count=1 2>/dev/null | od -An -tx2)
    echo "$QUIZMATRIX_HANDOFF $QUIZMATRIX_DISKS:$found"
    [ "$found" = " 0102" ]
"""


def test_what_one_byte_order_writes_the_other_misreads(hand_on: Run) -> None:
    done = hand_on(write=WRITE, read=READ, back=True)
    assert done.status == 1, done.said
    own = {f"{cell}..{cell}": "passed" for cell in (X86, S390X)}
    home = {f"{cell}..{cell}..{cell}": "passed" for cell in (X86, S390X)}
    crossed = {f"{X86}..{S390X}": "failed", f"{S390X}..{X86}": "failed"}
    not_home = {f"{X86}..{S390X}..{X86}": "skipped", f"{S390X}..{X86}..{S390X}": "skipped"}
    assert done.outcomes == {X86: "passed", S390X: "passed"} | own | crossed | home | not_home
    assert done.stdout(f"{S390X}..{X86}") == "read /dev/quizh0 /dev/quizh1: 0201\n"
    assert done.stdout(f"{S390X}..{S390X}..{S390X}") == "back /dev/quizh0 /dev/quizh1: 0102\n"
    pair = done.cells[f"{S390X}..{X86}"]
    assert pair["arch"] == "x86_64"
    assert pair["handoff"] == {
        "step": "read", "written_on": S390X, "read_on": X86, "kept": f"{S390X}/disks",
    }  # fmt: skip
    detail = done.cells[f"{S390X}..{X86}..{S390X}"]["detail"]
    assert detail == f"{X86} did not read the disks of {S390X}: failed"
    assert "Fails only across byte orders." in done.report
    assert f"disks it was given: {done.folder}/{S390X}/disks/" in done.report
    row = next(line.split() for line in done.report.splitlines() if line.startswith(f"{X86} "))
    assert [word for word in row if word.isalpha()] == ["passed", "passed", "failed"]
    # The kept disks are as they were written, and no others are kept.
    assert done.disks == [f"{S390X}/disks", f"{X86}/disks"]
    assert (done.folder / f"{S390X}/disks/quizh0").read_bytes()[:2] == b"\1\2"
    assert (done.folder / f"{X86}/disks/quizh0").read_bytes()[:2] == b"\2\1"
    # Started by hand, the guest finds the same data on its own disks.
    script = done.folder / f"{S390X}..{X86}" / "reproduce.sh"
    again = subprocess.run([str(script)], capture_output=True, check=False, timeout=200)
    assert again.stdout == b"read /dev/quizh0 /dev/quizh1: 0201\n", again.stderr


def test_every_reader_has_a_copy_that_goes_home(hand_on: Run) -> None:
    """One writer. What a reader adds is seen back on the writer's cell, and by no other reader."""
    write = "echo written >/dev/quizh0"
    read = """
        set -e
        read -r first </dev/quizh0; [ $first = written ]
        dd if=/dev/quizh1 bs=4k skip=100 count=1 2>/dev/null | tr -d '\\0'
        echo "$QUIZMATRIX_CELL" | dd of=/dev/quizh1 bs=4k seek=100 conv=notrunc 2>/dev/null
    """
    keys = {"write": write, "read": read, "from": ["*-s390x"], "back": True}
    done = hand_on("-j", "1", **keys)
    assert done.status == 0, done.report
    assert set(done.outcomes.values()) == {"passed"}
    assert len(done.outcomes) == 5
    for reader in (X86, S390X):
        assert done.stdout(f"{S390X}..{reader}") == ""
        assert done.stdout(f"{S390X}..{reader}..{S390X}") == f"{reader}\n"
    assert done.disks == []


def test_the_disks_of_a_writer_that_fails_are_read_by_nobody(hand_on: Run) -> None:
    write = "echo x >/dev/quizh0; [ $QUIZMATRIX_ARCH = x86_64 ] || echo c >/proc/sysrq-trigger"
    done = hand_on(write=write, read="read -r x </dev/quizh0; [ $x = x ]", to=["*-x86_64"])
    assert done.status == 1, done.said
    assert done.outcomes == {
        X86: "passed",
        S390X: "panicked",
        f"{X86}..{X86}": "passed",
        f"{S390X}..{X86}": "skipped",
    }
    assert f"{S390X}..{X86}: skipped: {S390X} did not write the disks: panicked" in done.report
    assert "Writing: panics only on s390x." in done.report
    assert done.disks == []


def test_an_interrupt_leaves_no_disks(environment: dict[str, str], tmp_path: Path) -> None:
    path = matrix(tmp_path, write="echo x >/dev/quizh0", read="sleep 1000")
    # A background job of a script ignores SIGINT, and quizmatrix would inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "quizmatrix", "run", str(path)]
    command += ["--offline", "--output", "run", "--only", S390X]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        while line := process.stderr.readline():
            if line.rstrip().endswith(f"{S390X}..{S390X}: running".encode()):
                break
        assert list(tmp_path.glob("run/*/disks/quizh0"))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"1 passed, 1 cancelled" in output
    assert not list(tmp_path.rglob("quizh*"))


def test_what_failed_is_run_again_with_what_wrote_its_disks(tmp_path: Path, quizmatrix: Quizmatrix) -> None:
    read = 'test -e fixed || [ "$QUIZMATRIX_WRITER" = "$QUIZMATRIX_CELL" ]'
    path = matrix(tmp_path, write="echo hello >/dev/quizh0", read=read, to=[S390X])
    # A task that passed, and one that failed.
    assert quizmatrix("run", str(path), "--offline").returncode == 1
    (tmp_path / "here" / "fixed").touch()
    again = quizmatrix("run", "--last-failed", "--html", "again.html")
    assert again.returncode == 0
    assert b"* not run again: from " in again.stdout
    assert (tmp_path / "here" / "again.html").stat().st_size > 10_000
    results = json.loads((tmp_path / "state/runs/latest/results.json").read_bytes())
    assert {cell["cell"]: bool(cell["earlier"]) for cell in results["cells"]} == {
        X86: False,
        S390X: True,
        f"{X86}..{S390X}": False,
        f"{S390X}..{S390X}": True,
    }
    compared = quizmatrix("runs", "compare")
    assert compared.returncode == 0
    assert compared.stdout.decode().splitlines()[2:] == ["fixed", f"  {X86}..{S390X}  failed (1) -> passed"]
