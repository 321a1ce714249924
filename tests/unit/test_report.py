"""The text report: grid, explanations, common sentence, exit status."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core.text import clean_line, tail
from quizmatrix.core.version import KernelVersion
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, Timings
from quizmatrix.report.common import common_sentence
from quizmatrix.report.grid import evidence_lines, exit_status, explanations, grid, summary

RELEASES = {"newest": "7.2.13+deb14-amd64"}


def result(cell: str, outcome: str = "passed", **more: Any) -> CellResult:
    kernel, arch = cell.rsplit("-", 1)
    fields: dict[str, Any] = {
        "release": RELEASES.get(kernel, f"{kernel}.1-arch"),
        "variant": None,
        "accelerator": None,
        "exit_code": {"passed": 0, "failed": 1}.get(outcome),
        "timings": Timings(command=1.25),
    }
    return CellResult(cell=cell, kernel=kernel, arch=arch, outcome=Outcome(outcome), **(fields | more))


def test_the_grid() -> None:
    results = [
        result("5.10-x86_64", "failed", exit_code=3),
        result("newest-x86_64"),
        result("newest-s390x", "failed", expected=Outcome.FAILED),
        result("6.1-s390x", expected=Outcome.FAILED),
        result("6.12-s390x", "unprepared", timings=Timings(), release=None),
    ]
    assert grid(results).splitlines() == [
        "kernel           x86_64             s390x",
        "---------------  -----------------  ---------------------------",
        "5.10             failed (3)  1.25s  -",
        "newest (7.2.13)  passed  1.25s      failed (1), expected  1.25s",
        "6.1              -                  passed, not failed  1.25s",
        "6.12             -                  unprepared",
    ]
    assert "\x1b[31m" in grid(results, colour=True)
    assert summary(results, 3.0) == "5 cells in 3.00s: 2 passed, 2 failed, 1 unprepared"


def test_cells_that_failed_alike_share_a_paragraph(tmp_path: Path) -> None:
    for cell, text in (("6.1-s390x", "bad\n"), ("6.12-s390x", "bad\n"), ("6.12-x86_64", "worse\n")):
        (tmp_path / cell).mkdir()
        (tmp_path / cell / "stdout").write_text(text)
    results = [result(cell, "failed") for cell in ("6.1-s390x", "6.12-s390x", "6.12-x86_64")]
    shown = explanations([*results, result("6.1-x86_64")], tmp_path)
    assert shown.split("\n\n") == [
        f"6.1-s390x, 6.12-s390x: failed (1)\n    bad\n  logs: {tmp_path}/{{6.1-s390x,6.12-s390x}}/",
        f"6.12-x86_64: failed (1)\n    worse\n  logs: {tmp_path}/6.12-x86_64/",
    ]


def test_a_panic_is_shown_from_its_first_line(tmp_path: Path) -> None:
    lines = [f"[    0.{number:03d}000] boot line {number}" for number in range(50)]
    lines += ["[    2.000000] Kernel panic - not syncing: sysrq triggered crash", "[    2.1] CPU: 0"]
    lines += ["[    2.2] trace"] * 30
    (tmp_path / "6.1-s390x").mkdir()
    (tmp_path / "6.1-s390x/console.log").write_text("\r\n".join(lines))
    shown = evidence_lines(result("6.1-s390x", "panicked"), tmp_path)
    assert shown[0].endswith("sysrq triggered crash")
    assert len(shown) == 10
    assert evidence_lines(result("6.9-s390x", "panicked"), tmp_path) == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_nothing_reaches_the_terminal_that_it_would_act_on(text: str) -> None:
    shown = clean_line(text)
    assert not [character for character in shown if unicodedata.category(character) == "Cc"]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_escape_sequences_go_whole() -> None:
    assert (
        clean_line("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b(B\r\x08") == "red link"
    )
    assert clean_line("a\u202eb\u2066c") == "abc"
    assert len(clean_line("x" * 100_000)) < 300


def test_the_tail_of_a_huge_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe" + b"line\n" * 1_000_000 + b"last\n\n")
    assert tail(tmp_path / "f", 2) == ["line", "last"]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["passed"], 0),
        (["failed"], 3),
        (["timed-out"], 124),
        (["panicked"], 1),
        (["splat"], 1),
        (["lost"], 125),
        (["boot-failed"], 125),
        (["unprepared"], 125),
        (["passed", "passed"], 0),
        (["passed", "failed"], 1),
        (["passed", "timed-out"], 1),
        (["passed", "unprepared"], 125),
        (["failed", "unprepared"], 3),
        (["failed", "cancelled"], 1),
        (["passed", "skipped"], 125),
    ],
)
def test_exit_statuses(outcomes: list[str], status: int) -> None:
    results = [
        result(f"6.{number}-s390x", outcome, exit_code=3 if outcome == "failed" else None)
        for number, outcome in enumerate(outcomes)
    ]
    assert exit_status(results) == status
    assert exit_status(results, interrupted=True) == 130


def test_what_is_expected_is_no_failure() -> None:
    known = result("6.1-s390x", "failed", expected=Outcome.FAILED)
    assert exit_status([known]) == 0
    assert exit_status([known, result("6.1-x86_64")]) == 0
    assert exit_status([result("6.1-s390x", expected=Outcome.FAILED)]) == 1
    assert exit_status([result("6.1-s390x", "failed", exit_code=None)]) == 1


KERNELS = ["5.10", "6.1", "6.12", "newest"]
ARCHES = ["x86_64", "s390x"]


@pytest.mark.parametrize(
    ("failing", "sentence"),
    [
        (["5.10-s390x", "6.1-s390x", "6.12-s390x", "newest-s390x"], "Fails only on s390x."),
        (["6.12-x86_64", "6.12-s390x", "newest-x86_64", "newest-s390x"], "Fails only from 6.12 on."),
        (["5.10-x86_64", "5.10-s390x"], "Fails only on 5.10."),
        (["5.10-x86_64", "5.10-s390x", "6.1-x86_64", "6.1-s390x"], "Fails only before 6.12."),
        (["6.12-s390x", "newest-s390x"], "Fails only on s390x from 6.12 on."),
        (["5.10-s390x", "6.12-s390x"], "Fails only on s390x (2 of 4 there)."),
        (["5.10-s390x", "6.12-x86_64"], ""),
        ([], ""),
    ],
)
def test_the_sentence(failing: list[str], sentence: str) -> None:
    ids = [f"{kernel}-{arch}" for kernel in KERNELS for arch in ARCHES]
    assert (
        common_sentence([result(cell, "failed" if cell in failing else "passed") for cell in ids]) == sentence
    )


def test_the_sentence_is_about_failures_not_expectations() -> None:
    unexpected_pass = result("6.1-s390x", expected=Outcome.FAILED)
    known = result("6.1-s390x", "failed", expected=Outcome.FAILED)
    assert common_sentence([unexpected_pass, result("6.1-x86_64")]) == ""
    assert common_sentence([known, result("6.1-x86_64", "failed")]) == ""
    assert common_sentence([known, result("6.1-x86_64")]) == ""


def test_a_cell_that_a_tests_limit_cut_off_is_no_evidence() -> None:
    good = result("6.1-s390x")
    slow = result("6.1-x86_64", "failed", subtests={"passed": 42, "killed": 1})
    assert common_sentence([good, slow]) == ""
    assert common_sentence([good, result("6.1-x86_64", "failed", subtests={"failed": 1, "killed": 1})]) != ""


def test_the_sentence_names_what_happened() -> None:
    results = [result("6.1-x86_64"), result("6.1-s390x", "panicked"), result("6.12-s390x", "panicked")]
    assert common_sentence(results) == "Panics only on s390x."
    assert common_sentence([*results[1:]]) == ""
    unprepared = result("6.12-x86_64", "unprepared", release=None)
    assert common_sentence([unprepared, *results]) == "Panics only on s390x."


@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_the_sentence_is_true(fails: list[bool]) -> None:
    ids = [(kernel, arch) for kernel in KERNELS for arch in ARCHES]
    failing = {f"{kernel}-{arch}" for (kernel, arch), bad in zip(ids, fails, strict=True) if bad}
    results = [result(f"{k}-{a}", "failed" if f"{k}-{a}" in failing else "passed") for k, a in ids]
    words = common_sentence(results).rstrip(".").split()
    if not words or words[-1] == "there)":
        return
    named = set()
    for kernel, arch in ids:
        version = KernelVersion("7.2" if kernel == "newest" else kernel)
        holds = True
        for place, word in enumerate(words):
            after = words[place + 1] if place + 1 < len(words) else ""
            if word == "on" and after in ARCHES:
                holds &= arch == after
            elif word == "on" and after[:1].isdigit():
                holds &= version == KernelVersion(after)
            elif word == "before":
                holds &= version < KernelVersion(after)
            elif word == "from":
                holds &= version >= KernelVersion(after)
        if holds:
            named.add(f"{kernel}-{arch}")
    assert named == failing
