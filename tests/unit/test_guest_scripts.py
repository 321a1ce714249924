"""The scripts that run in guests, as far as they can be tested without one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from quizmatrix.subtests import reading

GUEST = Path(__file__).parents[2] / "guest"
PROGRAMS = GUEST / "profiles/zfs/files/usr/local/bin"


def is_shell(path: Path) -> bool:
    if path.suffix == ".sh" or (path.parent.parent.name == "profiles" and path.name in ("init", "setup")):
        return True
    if path.parent == GUEST:
        return path.name not in ("fstab", "README.md")
    return path.read_bytes().startswith(b"#!/bin/sh")


SCRIPTS = [path for path in sorted(GUEST.rglob("*")) if path.is_file() and is_shell(path)]
SHELLS = [
    shell for shell in (["sh"], ["dash"], ["bash", "--posix"], ["busybox", "ash"]) if shutil.which(shell[0])
]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(GUEST)))
def test_syntax(path: Path, shell: list[str]) -> None:
    done = subprocess.run([*shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_called_can_be_executed() -> None:
    for path in GUEST.glob("profiles/*/files/usr/local/bin/*"):
        assert os.access(path, os.X_OK), path


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    # There are no pools that it could reach.
    path = "/usr/bin:/bin"
    return subprocess.run(
        argv, env={"PATH": path, **environment}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def words(program: str) -> list[str]:
    done = run(str(PROGRAMS / program), "--list")
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split()


@pytest.mark.skipif(Path("/dev/zfs").exists(), reason="this host has OpenZFS")
@pytest.mark.parametrize(
    ("argv", "steps"),
    [
        (("zfs-smoke",), words("zfs-smoke")),
        (("zfs-smoke", "scrub", "send"), ["scrub", "send"]),
        # Pools are created before the sets of tests, and exported after them.
        (("zfs-handoff", "write"), ["create", *words("zfs-handoff"), "export"]),
        (("zfs-handoff", "write", "lz4", "compression", "log"), ["create", *"abcde", "log", "export"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_plan_is_what_the_list_says(
    shell: list[str], argv: tuple[str, ...], steps: list[str], tmp_path: Path
) -> None:
    done = run(shutil.which(shell[0]) or "", *shell[1:], str(PROGRAMS / argv[0]), *argv[1:])
    assert done.returncode == 99
    assert done.stdout.startswith(f"TAP version 13\n1..{len(steps)}\nBail out! ".encode())
    (tmp_path / "stdout").write_bytes(done.stdout)
    read = reading.read(tmp_path / "stdout")
    assert read.missing == len(steps)
    assert read.failure.startswith("the tests bailed out")


def test_every_step_has_its_function() -> None:
    smoke, handoff = ((PROGRAMS / name).read_text() for name in ("zfs-smoke", "zfs-handoff"))
    for step in words("zfs-smoke"):
        if not step.startswith(("compress-", "checksum-", "record-")):
            assert re.search(rf"^step_{step.replace('-', '_')}\(\)", smoke, re.MULTILINE), step
    plain = set(re.findall(r'^(?:compression|checksum|recordsize)="(.*)"$', handoff, re.MULTILINE))
    for name in set(words("zfs-handoff")) - set(" ".join(plain).split()):
        for verb in ("make", "see", "change"):
            assert re.search(rf"^{verb}_{name}\(\)", handoff, re.MULTILINE), name


@pytest.mark.parametrize("argv", [("zfs-smoke", "none"), ("zfs-handoff",), ("zfs-handoff", "write", "none")])
def test_an_unknown_word_is_refused(argv: tuple[str, ...]) -> None:
    done = run(str(PROGRAMS / argv[0]), *argv[1:])
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(argv[0].encode())


def test_handoff_takes_its_words_from_the_environment() -> None:
    program = str(PROGRAMS / "zfs-handoff")
    done = run(program, QUIZMATRIX_HANDOFF="write", HANDOFF_FEATURES="lz4 zle")
    assert done.stdout.startswith(b"TAP version 13\n1..4\n")


STEPS = """
tap_work=$1
. "$2"
tap_begin 4
good() { true; }
bad() { echo a word; false; echo not this; }
none() { skip "there is none"; }
later() { [ "$1" = "two words" ]; refuses false; }
tap_step first good
tap_step second bad
tap_step third none
tap_step fourth later "two words"
[ $tap_failed = 0 ]
"""


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_steps(shell: list[str], tmp_path: Path) -> None:
    library = GUEST / "profiles/zfs/files/usr/local/lib/quizmatrix/tap.sh"
    argv = [*shell, "-c", STEPS, "sh", str(tmp_path), str(library)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line for line in done.stdout.splitlines() if not re.fullmatch(r"# \d+\.\d s", line)]
    assert lines[:4] == ["TAP version 13", "1..4", "ok 1 - first", "not ok 2 - second"]
    assert lines[-2:] == ["ok 3 - third # SKIP there is none", "ok 4 - fourth"]
    assert "# a word" in lines
    assert "# not this" not in lines


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck() -> None:
    programs = [path for path in SCRIPTS if "files" in path.parts]
    argv = ["shellcheck", "--external-sources", *map(str, programs)]
    done = subprocess.run(argv, cwd=GUEST.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
