"""Commands that a profile provides, in guests: what they get, where they are skipped, and mistyped ones."""

import json
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix

PROFILE = """\
summary  = "a command of a test's"
provides = ["mine-test"]

[provided]
image   = "debian"
include = ["base"]
memory  = "1500M"
instead = "true"
"""


@pytest.fixture
def own(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment with a profile that provides `mine-test`, which prints what it got."""
    folder = tmp_path / "config/profiles/mine"
    (folder / "files/usr/bin").mkdir(parents=True)
    (folder / "profile.toml").write_text(PROFILE)
    command = folder / "files/usr/bin/mine-test"
    command.write_text('#!/bin/bash\necho "$QUIZMATRIX_PROFILES, $1, $(dpkg --print-architecture)"\n')
    command.chmod(0o755)
    return environment | {"QUIZMATRIX_CONFIG_DIR": str(tmp_path / "config")}


def test_a_cell_that_cannot_have_it_is_skipped(
    quizmatrix: Quizmatrix, own: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    # Nothing is built for it: this would take minutes, and fail without a compiler.
    options = ("--only", "6.1-x86_64,6.1-ppc64", "--output", str(folder))
    done = quizmatrix("run", *options, "--", "mine-test", "a  b", env=own)
    report = done.stdout.decode()
    assert done.returncode == 0, report + done.stderr.decode()
    assert b"quizmatrix: mine-test: profile mine; image debian+base; 1500 MiB (" in done.stderr
    assert b"to compile" not in done.stderr
    why = "mine-test needs a Debian image, and Debian's archive does not carry ppc64; true runs there"
    assert f"Skipped: 6.1-ppc64: {why}" in report
    assert "2 cells in" in report
    assert "1 passed, 1 skipped" in report
    assert (folder / "6.1-x86_64/stdout").read_text() == "mine, a  b, amd64\n"
    cells = json.loads((folder / "results.json").read_bytes())["cells"]
    assert [(cell["outcome"], cell["expected"]) for cell in cells] == [
        ("passed", "passed"),
        ("skipped", "skipped"),
    ]
    # It has ended: there is nothing to resume, and what repeats a cell takes the same again.
    done = quizmatrix("run", "--resume", str(folder), env=own)
    assert b"nothing is left to run" in done.stderr
    argv = cells[0]["again"]["argv"]
    assert argv[1:] == ["run", "--only", "6.1-x86_64", "--no-stdin", "--", "mine-test", "a  b"]
    done = quizmatrix(*argv[1:], env=own)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"mine, a  b, amd64\n", b"")


def test_where_all_are_skipped_there_is_no_verdict(quizmatrix: Quizmatrix, own: dict[str, str]) -> None:
    done = quizmatrix("run", "--only", "6.1-ppc64", "--", "mine-test", env=own)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"quizmatrix: 6.1-ppc64: skipped: mine-test needs a Debian image, and ")


def test_a_mistyped_command_is_told_what_was_meant(quizmatrix: Quizmatrix) -> None:
    done = quizmatrix("run", "--only", "6.1-x86_64", "--offline", "--", "zfs-test.sh -r sanity.run")
    assert (done.returncode, done.stdout) == (127, b"")
    said = "6.1-x86_64: failed (127): no guest has `zfs-test.sh`; the profile ztest provides zfs-tests.sh\n"
    assert said in done.stderr.decode()
    # Called by something else, it is not COMMAND's program.
    done = quizmatrix("run", "--only", "6.1-x86_64", "--offline", "--", "sh", "-c", "true && zfs-smoke")
    said = "failed (127): no guest has `zfs-smoke` by itself; the profile zfs provides it\n"
    assert said in done.stderr.decode()
