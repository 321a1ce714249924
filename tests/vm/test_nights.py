"""Two nights in real guests: what each reports, in every format, and what changed."""

import json
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.unit.test_reports import embedded
from tests.vm.conftest import Quizmatrix

SCRIPT = """#!/bin/sh
case $QUIZMATRIX_CELL in
6.1-x86_64) test ! -e broken ;;
6.1-s390x) test -e mended || exit 3 ;;
6.12-x86_64) sleep 1000 ;;
6.12-s390x) echo c >/proc/sysrq-trigger; sleep 100 ;;
newest-x86_64) echo '<4>WARNING: CPU: 0 PID: 1 at here.c:1' >/dev/kmsg ;;
newest-s390x) test "$(cat chance)" = 1 ;;
esac
"""
OUTCOMES = {
    "6.1-x86_64": "passed",
    "6.1-s390x": "failed",
    "6.12-x86_64": "timed-out",
    "6.12-s390x": "panicked",
    "newest-x86_64": "splat",
    "newest-s390x": "passed",
}
GRID = [
    "kernel    x86_64     s390x",
    "6.1       passed     failed (3)",
    "6.12      timed-out  panicked",
    "newest    splat      passed (flaky)",
]
# How JUnit counts each cell's command.
CASES = {
    "6.1-x86_64": [],
    "6.1-s390x": ["failure"],
    "6.12-x86_64": ["failure"],
    "6.12-s390x": ["failure"],
    "newest-x86_64": ["failure"],
    "newest-s390x": [],
}
CHANGED = """regressed
  6.1-x86_64  passed -> failed (1)

fixed
  6.1-s390x  failed (3) -> passed

still failing
  6.12-x86_64    timed-out
  6.12-s390x     panicked
  newest-x86_64  splat
  Kernel panic - not syncing: sysrq triggered crash on 6.12-s390x
  WARNING: CPU: 0 PID: 1 at here.c:1 on newest-x86_64
"""
FORMS = ("json", "junit", "markdown", "html")


def by_chance(here: Path, text: str) -> None:
    """A changed text with the same size and mtime, so that the change cannot be seen."""
    (here / "chance").write_text(text)
    os.utime(here / "chance", (1e9, 1e9))


def _word(found: re.Match[str]) -> str:
    return "newest" if found[0].startswith("newest") else ""


def squeezed(text: str) -> list[str]:
    """The lines of a grid without the times and the release, which differ."""
    rows = []
    for line in text.splitlines():
        rows.append(" ".join(re.sub(r"^newest \(\S+\)|\b[\d.]+m?[\d.]*s\b", _word, line).split()))
    return rows


def prints(text: str) -> list[str]:
    """The words of each line without fingerprints, which change with Debian's kernel."""
    return [" ".join(re.sub(r" \([0-9a-f]{12}\) ", " ", line).split()) for line in text.splitlines()]


@pytest.mark.timeout(600)
def test_two_nights(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    here = tmp_path / "here"
    script = here / "night.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    by_chance(here, "0")
    options = ("--timeout", "1s")
    before = quizmatrix("run", "quick", "--only", "newest-s390x", *options, "--", "./night.sh")
    assert before.returncode == 1, before.stderr
    by_chance(here, "1")

    def night() -> subprocess.CompletedProcess[bytes]:
        reports = [f"--{form}={tmp_path / form}" for form in FORMS]
        return quizmatrix("run", "quick", *options, *reports, "--", "./night.sh")

    first = night()
    assert first.returncode == 1, first.stderr
    told = squeezed(first.stdout.decode())
    for line in GRID:
        assert " ".join(line.split()) in told, first.stdout.decode()
    assert "2 passed, 1 failed, 1 timed-out, 1 panicked, 1 splat" in first.stdout.decode()

    cells = json.loads((tmp_path / "json").read_bytes())["cells"]
    assert {cell["cell"]: cell["outcome"] for cell in cells} == OUTCOMES
    assert [cell["cell"] for cell in cells if cell["flaky"]] == ["newest-s390x"]
    bad = {"failure", "error", "skipped"}
    found = {}
    for suite in ET.parse(tmp_path / "junit").getroot().iter("testsuite"):  # noqa: S314 - our own
        parts = [part.tag for case in suite.iter("testcase") for part in case]
        found[suite.get("name")] = [tag for tag in parts if tag in bad]
    assert found == CASES
    markdown = (tmp_path / "markdown").read_text()
    for words in ("failed (3)", "timed-out", "panicked", "splat", "passed (flaky)"):
        assert words in markdown
    page = embedded((tmp_path / "html").read_text())
    shown = {cell["id"]: cell["outcome"] for cell in page["data"]["cells"]}
    assert shown == OUTCOMES

    (here / "broken").touch()
    (here / "mended").touch()
    assert night().returncode == 1
    compared = quizmatrix("runs", "compare")
    assert compared.returncode == 1
    assert prints(compared.stdout.decode().partition("\n\n")[2]) == prints(CHANGED)
