"""Repeated runs in real guests: failed cells are run again, and flaky cells differ from fixed ones."""

import json
import os
from pathlib import Path

from tests.vm.conftest import ARCHES, KERNEL, Quizmatrix

# On the first architecture the command passes once this file exists.
FIX = "fixed"
COMMAND = f'test "$(uname -m)" != {ARCHES[0]} || test -e {FIX}'


def test_a_failure_is_fixed(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    cells = ",".join(f"{KERNEL}-{arch}" for arch in ARCHES)
    first = quizmatrix("run", "--only", cells, "--", COMMAND)
    assert first.returncode == 1
    (tmp_path / "here" / FIX).touch()
    latest = tmp_path / "state/runs/latest/results.json"
    before = json.loads(latest.read_bytes())
    again = quizmatrix("run", "--last-failed", "--memory", "768M")
    assert again.returncode == 0
    assert b"* not run again: from " in again.stdout
    results = json.loads(latest.read_bytes())
    # What is typed with --last-failed holds for this run only, so the next one repeats the first.
    assert (results["options"], results["arguments"]) == (before["options"], before["arguments"])
    assert [(cell["arch"], bool(cell["earlier"])) for cell in results["cells"]] == [
        (ARCHES[0], False),
        (ARCHES[1], True),
    ]
    compared = quizmatrix("runs", "compare")
    assert compared.returncode == 0
    assert compared.stdout.decode().splitlines()[2:] == [
        "fixed",
        f"  {KERNEL}-{ARCHES[0]}  failed (1) -> passed",
    ]


def test_flaky_is_said(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    chance = tmp_path / "here/chance"
    statuses = []
    for text in ("0", "1"):
        # The changed file has the same size and mtime, so the inputs count as the same, and the cell as
        # flaky.
        chance.write_text(text)
        os.utime(chance, (1e9, 1e9))
        done = quizmatrix("run", "--only", f"{KERNEL}-{ARCHES[1]}", "--", "test $(cat chance) = 1")
        statuses.append(done.returncode)
    assert statuses == [1, 0]
    words = f"{KERNEL}-{ARCHES[1]}: passed (flaky): failed in the run before, from the same inputs"
    assert words in done.stderr.decode()
    assert quizmatrix("runs", "compare").returncode == 0
