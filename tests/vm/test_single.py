"""A single cell behaves as if the command ran on the host."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import msgspec
import pytest

from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import Bind, CellSpec
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import GuestPlan, specify
from quizmatrix.run.cell import run_cell
from tests.vm.conftest import ARCHES, Quizmatrix

CELLS = [f"6.1-{arch}" for arch in ARCHES]


def only(cell: str, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    """The arguments of a run of one cell."""
    return ["run", "--only", cell, "--offline", *options, "--", *command]


@pytest.mark.parametrize("cell", CELLS)
def test_streams_are_exact(cell: str, quizmatrix: Quizmatrix) -> None:
    """Every byte value arrives in order, nothing is added, and no newline at the end."""
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
    done = quizmatrix(*only(cell, script, options=("--no-stdin",)), input=b"never read")
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


def test_a_specification_that_was_json(tmp_path: Path) -> None:
    """Words, values and paths that are not UTF-8 reach the guest as the bytes that they are."""
    here, bound = (tmp_path / os.fsdecode(name) for name in (b"here\xff", b"bound\xfe"))
    for folder in (here, bound):
        folder.mkdir()
        (folder / "file").write_bytes(folder.name.encode(errors="surrogateescape"))
    results = tmp_path / os.fsdecode(b"results\xfd")
    results.mkdir()
    word, value, place = map(os.fsdecode, (b"\x80\xff", b"\xc3\x28", b"/odd\xf8"))
    (cell,) = cells_on_the_spot(["6.1-x86_64"], Limits())
    script = 'printf "%s|%s|%s|" "$1" "$ODD" "$PWD"; cat file /odd*/file; touch /shared/kept'
    guest = GuestPlan(
        work_tree=str(here), environment={"ODD": value}, binds=[Bind(path=str(bound), guest=place)]
    )

    async def run() -> CellResult:
        preparer = Preparer(Policy(offline=True))
        prepared = await preparer.prepare(cell, lambda _text: None)
        (task,) = in_each([cell], ["sh", "-c", script, "sh", word])
        made = await specify(task, prepared, Accelerator.TCG, folder=results, asked=guest)
        read = CellSpec.decode(made.encode())
        assert read == made
        return await run_cell(read)

    result = anyio.run(run)
    assert (result.outcome, result.detail) == (Outcome.PASSED, "")
    expected = b"\x80\xff|\xc3\x28|%s|here\xffbound\xfe" % os.fsencode(here)
    assert (results / "stdout").read_bytes() == expected
    assert (results / "artifacts/kept").exists()
    again = (results / "reproduce.sh").read_bytes()
    assert b"\xc3\x28" in again
    assert os.fsencode(bound) in again


def test_a_cells_job_can_be_run_by_hand(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    script = 'echo "$TOKEN"; cat; echo kept >/shared/kept; exit 3'
    (tmp_path / "here/input").write_text("input\n")
    options = ("--env", "TOKEN", "--stdin", "input", "--output", "run")
    environment = {**os.environ, "TOKEN": "secret"}
    first = quizmatrix(*only("6.1-x86_64", script, options=options), env=environment)
    argv = [sys.executable, "-m", "quizmatrix.run", "run/6.1-x86_64/job.json", "again"]
    again = subprocess.run(argv, cwd=tmp_path / "here", env=environment, capture_output=True, check=False)
    assert (first.returncode, first.stdout) == (3, b"secret\ninput\n")
    assert (again.returncode, again.stdout) == (3, first.stdout)
    assert again.stderr.decode() == f"quizmatrix: failed, in {tmp_path}/here/again\n"
    results = [tmp_path / "here/run/6.1-x86_64", tmp_path / "here/again"]
    read = [msgspec.json.decode((place / "result.json").read_bytes(), type=CellResult) for place in results]
    assert [(one.outcome, one.exit_code) for one in read] == [(Outcome.FAILED, 3)] * 2
    for place in results:
        assert (place / "artifacts/kept").read_text() == "kept\n"
        assert not [
            path
            for path in place.rglob("*")
            if path.is_file() and b"secret" in path.read_bytes() and path.name != "stdout"
        ]


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
    """The command ends while its output is not read, as in a pager: the output waits."""
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


def test_the_folder_typed_is_the_folder_seen(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    """A shell shows the path that was given to cd (POSIX); command lines use it, and so does the guest."""
    real = tmp_path / "real/below"
    real.mkdir(parents=True)
    (tmp_path / "link with space").symlink_to("real")
    typed = tmp_path / "link with space/below"
    (real / "t.sh").write_text('#!/bin/sh\npwd; pwd -P; cat "$1"\n')
    (real / "t.sh").chmod(0o755)
    (real / "data").write_text("found\n")
    words = [f"{typed}/t.sh", f"{tmp_path}/real/below/data"]
    there = {"cwd": typed, "env": environment | {"PWD": str(typed)}}
    done = quizmatrix(*only("6.1-x86_64", *words), **there)
    assert done.stderr == b""
    assert done.stdout.decode() == f"{typed}\n{real}\nfound\n"
    # Even if the shell has the folder's real path, a word may go through a symlink.
    done = quizmatrix(*only("6.1-x86_64", f"'{typed}/t.sh' data"), cwd=real)
    assert (done.stdout.decode(), done.stderr) == (f"{real}\n{real}\nfound\n", b"")


def test_a_folder_that_cannot_be_shown_is_said(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder, "data").write_text("found\n")
        done = quizmatrix(*only("6.1-x86_64", "ls data; echo $?"), cwd=folder)
        assert f"{folder} is not shown to the guest, which has a /dev of its own" in done.stderr.decode()
        assert done.stdout == b"1\n"
        # It can be shown at a path that hides nothing of the guest's.
        (tmp_path / "link").symlink_to(folder)
        there = {"cwd": folder, "env": environment | {"PWD": str(tmp_path / "link")}}
        done = quizmatrix(*only("6.1-x86_64", "pwd; cat data"), **there)
        assert (done.stdout.decode(), done.stderr) == (f"{tmp_path}/link\nfound\n", b"")


def test_a_variable_and_a_file_are_passed_on(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    """The variable's value is in the guest, and afterwards in no file; the bound file is the host's own."""
    value = 's3cret it\'s\n$HOME "x" '
    for name in ("read", "written"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "link").symlink_to("written")
    options = (
        *("--env", "TOKEN", "--env", "PLAIN=1", "--output", "run"),
        *("--bind", f"{tmp_path}/read:/etc/deep/a b:ro", "--bind", f"{tmp_path}/link:/etc/mtab"),
    )
    script = """printf '%s|' "$TOKEN" "$PLAIN"; cat '/etc/deep/a b' /etc/mtab; echo more >>/etc/mtab
        echo no >'/etc/deep/a b'; ls /layers 2>&1"""
    there = {"env": environment | {"TOKEN": value}}
    done = quizmatrix(*only("6.1-x86_64", script, options=options), **there)
    assert done.stdout.decode().startswith(f"{value}|1|read\nwritten\n")
    assert b"Read-only file system" in done.stderr
    assert (tmp_path / "read").read_text() == "read\n"
    assert (tmp_path / "link").read_text() == "written\nmore\n"
    run = tmp_path / "here/run"
    kept = [path for path in run.rglob("*") if path.is_file() and path.name not in ("stdout", "stderr")]
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]
    assert json.loads((run / "results.json").read_bytes())["arguments"][3:5] == ["--env", "TOKEN"]
    text = (run / "6.1-x86_64/reproduce.sh").read_text()
    assert "--env TOKEN --env PLAIN=1" in text
    # Started by hand, the guest gets the variable of that shell.
    again = subprocess.run(
        [run / "6.1-x86_64/reproduce.sh"],
        capture_output=True,
        check=False,
        timeout=200,
        env=environment | {"TOKEN": f"{value}2"},
    )
    assert f"{value}2|1|read\nwritten\nmore\n" in again.stdout.decode(), again
    assert not list(run.rglob("passed-on"))


@pytest.mark.parametrize(
    ("place", "why"),
    [("/proc/new/x", "No such file"), ("/usr/bin", "it is a folder there"), ("/etc/passwd/x", "File exists")],
)
def test_a_place_that_no_file_can_have(quizmatrix: Quizmatrix, tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "file").touch()
    done = quizmatrix(*only("6.1-x86_64", "true", options=("--bind", f"{tmp_path}/file:{place}")))
    (first, *_rest) = done.stderr.decode().splitlines()
    assert f"boot-failed: init1: --bind: the guest cannot have {place}: " in first
    assert why in first
    assert done.returncode == 125


def test_nobody_else_reads_what_a_command_was_given(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    options = ("--env", "TOKEN=s3cret", "-p", "blockdev:count=1,size=1M,persist=kept", "--junit", str(junit))
    script = 'echo "$TOKEN" | tee /shared/kept >/dev/quizb0; [ $TOKEN ]'
    done = quizmatrix(*only("6.1-x86_64", script, options=options), umask=0o002)
    assert done.returncode == 0, done.stderr
    state = tmp_path / "state"
    files = [path for path in state.rglob("*") if path.is_file() and not path.is_symlink()]
    told = {path for path in files if b"s3cret" in path.read_bytes()}
    names = {path.name for path in told}
    assert names >= {"results.json", "history.sqlite", "environment", "kept", "quizb0.raw"}
    for path in told:
        above = [one for one in (path, *path.parents) if one != state and one.is_relative_to(state)]
        assert any(not one.stat().st_mode & 0o077 for one in above), path
    # Files that the user names get the user's usual permissions.
    assert junit.stat().st_mode & 0o777 == 0o664
