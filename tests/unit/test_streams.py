"""What is printed: without escape sequences on a terminal, unchanged elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quizmatrix.core.text import clean_block
from tests.made_run import HOSTILE, hostile_run

# The colours that we use, and a line's end on a terminal.
OURS = re.compile(rb"\x1b\[[0-9;]*m|\r\n|[\n\t]")
# Control characters of terminals, as bytes or UTF-8, and characters that change the writing direction.
ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def on_a_terminal(*argv: str, folder: Path, **environment: str) -> bytes:
    """What quizmatrix writes to a terminal, on stdout and stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "quizmatrix", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=dict(os.environ) | {"TERM": "xterm", "QUIZMATRIX_STATE_DIR": str(folder / "state")} | environment,
    ):
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 1 << 16):
                seen += data
        except OSError:  # EIO: the other end is closed
            pass
    os.close(ours)
    return seen


def check_clean(seen: bytes) -> None:
    found = ACTS.search(OURS.sub(b"", seen).decode())
    assert found is None, seen[:2000]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return hostile_run(tmp_path / "run")


COMMANDS = [
    ["runs", "logs", "RUN"],
    ["runs", "logs", "RUN", "6.1-x86_64", "--console"],
    ["runs", "show", "RUN"],
    ["runs", "show", "RUN", "--tests"],
    ["runs", "show", "RUN", "--json", "-"],
    ["runs", "show", "RUN", "--markdown", "-"],
    ["runs", "show", "RUN", "--junit", "-"],
    ["runs", "compare", "RUN", "RUN"],
    ["runs", "list"],
    ["cells", "\x1b]0;title\x07\x1b[2Jname.toml"],
    ["cells", "evil.toml"],
    ["kernel", "show", "\x1b[2J\x9b2J\u202e"],
    ["run", "--only", "6.1-x86_64", "--dry-run", "--", "\x1b]0;title\x07", "\x9b2J"],
    ["nightly", "status", "\x1b[2J"],
    ["module", "build", "\x1b[2J"],
]


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: ascii(" ".join(argv)))
def test_nothing_acts_on_a_terminal(argv: list[str], run: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.toml").write_text('"\\u001b[2J\\u009b2J\\u202e" = 1\n')
    words = [str(run) if word == "RUN" else word for word in argv]
    check_clean(on_a_terminal(*words, folder=tmp_path))


def test_logs_are_as_they_were_where_nobody_looks(run: Path, tmp_path: Path) -> None:
    cell = "6.1-s390x"
    done = subprocess.run(
        [sys.executable, "-m", "quizmatrix", "runs", "logs", str(run), cell],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == (run / cell / "stdout").read_bytes()
    assert b"\x1b[2J" in done.stdout


def test_logs_of_any_length_and_cut_anywhere(run: Path, tmp_path: Path) -> None:
    """Sequences and characters that are split between two reads, and a line without an end."""
    piece = b"x" * 65533 + "\x1b[2J\u00e4\u20ac\x9b2J".encode() + b"\xff"
    (run / "6.1-s390x/stdout").write_bytes(piece * 40)
    seen = on_a_terminal("runs", "logs", str(run), "6.1-s390x", folder=tmp_path)
    check_clean(seen)
    assert seen.count(b"x") == 65533 * 40
    assert seen.decode().count("\u00e4\u20ac") == 40


def test_colours_of_ours_stay(run: Path, tmp_path: Path) -> None:
    assert b"\x1b[31mfailed" in on_a_terminal("runs", "show", str(run), folder=tmp_path)
    assert (
        clean_block("\x1b[1;31mred\x1b[0m\x1b[2J\x1b]0;t\x07\n\tnext\x9b") == "\x1b[1;31mred\x1b[0m\n\tnext"
    )
    check_clean(clean_block(HOSTILE.decode(errors="replace")).encode())


def test_the_table_of_a_run_is_drawn(tmp_path: Path) -> None:
    """With several cells that cannot be prepared, the table is drawn, and then replaced by the report."""
    argv = ("run", "-k", "4.4", "-a", "x86_64,s390x", "--accel", "tcg", "--offline", "--", "true")
    seen = on_a_terminal(*argv, folder=tmp_path, QUIZMATRIX_CACHE_DIR=str(tmp_path / "cache"))
    assert b"of 2 cells" in seen, seen
    assert b"2 unprepared" in seen
    assert b"Traceback" not in seen
