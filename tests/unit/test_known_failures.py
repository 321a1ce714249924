"""Failures of single tests that are known: to OpenZFS's suite, and to a matrix."""

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.core.errors import DataError
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import cells_on_the_spot, expand
from quizmatrix.model.known import KnownFailure, KnownUse
from quizmatrix.model.matrix import Limits, load_matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.profile import known_by
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report import grid
from quizmatrix.run.channel import Message
from quizmatrix.run.verdict import Evidence, judge
from quizmatrix.subtests.openzfslists import SuiteLists, parse_lists, read_lists
from quizmatrix.subtests.reading import parse
from quizmatrix.subtests.summary import Subtests

# As OpenZFS 2.4.3 and earlier versions write them.
LISTS = """
import os, sys
known_reason = 'Known issue'
if sys.platform.startswith('freebsd'):
    cfr_reason = 'needs FreeBSD 14+'
else:
    cfr_reason = 'needs kernel 5.3+'
known = {
    'casenorm/mixed_none_lookup_ci': ['FAIL', 7633],
    'refreserv/refreserv_004_pos': ['FAIL', known_reason],
    'rsend/rsend_008_pos': ['SKIP', 6066],
}
if sys.platform.startswith('freebsd'):
    known.update({'link_count/link_count_001': ['FAIL', known_reason]})
elif sys.platform.startswith('linux'):
    known.update({'casenorm/mixed_formd_lookup': ['FAIL', 7633]})
maybe = {
    'history/history_004_pos': ['FAIL', '7026'],
    'cp_files/cp_files_002_pos': ['SKIP', cfr_reason],
}
if os.environ.get('CI') == 'true':
    known.update({'fault/auto_online_001_pos': ['FAIL', known_reason]})
maybe['mmap/mmap_sync_001_pos'] = ['FAIL', known_reason]
os.abort()
def process_results(pathname):
    known.clear()
"""

ISSUES = "https://github.com/openzfs/zfs/issues/"
ROOT = "/usr/local/share/zfs/zfs-tests/tests/functional"


def line(name: str, result: str) -> str:
    return f"[2026-11-25T02:58:36.42] Test: {ROOT}/{name} (run as root)  [00:03] [{result}]\n"


# What the runner prints after the tests. The numbers are only read where tests have no names.
END = "\nResults Summary\n\nRunning Time:\t00:00:06\n"


def read(text: str, lists: str = LISTS, known: tuple[KnownFailure, ...] = ()) -> Subtests:
    return parse(io.BytesIO(text.encode()), known=known, lists_of=lambda: parse_lists(lists.encode()))


def judged(tests: Subtests, exit_code: int, signal: int | None = None) -> tuple[Outcome, str]:
    ended = Message(event="exited", exit_code=exit_code, signal=signal)
    return judge(Evidence(ended=ended, tests=tests.summed_up), ConsoleWatch())


def test_the_lists_are_those_of_a_guest() -> None:
    lists = parse_lists(LISTS.encode())
    assert {name: (one.result, one.why) for name, one in lists.known.items()} == {
        "casenorm/mixed_none_lookup_ci": ("FAIL", f"{ISSUES}7633"),
        "refreserv/refreserv_004_pos": ("FAIL", "Known issue"),
        "rsend/rsend_008_pos": ("SKIP", f"{ISSUES}6066"),
        "casenorm/mixed_formd_lookup": ("FAIL", f"{ISSUES}7633"),
    }
    assert {name: one.why for name, one in lists.maybe.items()} == {
        "history/history_004_pos": f"{ISSUES}7026",
        "cp_files/cp_files_002_pos": "needs kernel 5.3+",
        "mmap/mmap_sync_001_pos": "Known issue",
    }


@pytest.mark.parametrize(
    "text",
    [
        "known = [1]",
        "known = {1: 2, 'a': 'FAIL', 'b': ['FAIL']}",
        "known = {**x}",
        "maybe.update({'a': 1})",
        "known = {[]: 1}",
        "a = b",
        "def",
        "\x00",
        "(" * 5000,
        "known = " + "-" * 5000 + "1",
    ],
)
def test_lists_that_are_none(text: str) -> None:
    assert parse_lists(text.encode()) == SuiteLists()


@given(st.binary(max_size=200))
def test_lists_of_any_bytes(text: bytes) -> None:
    parse_lists(text)
    parse_lists(LISTS.encode() + text)


def test_the_lists_of_the_topmost_layer_count(tmp_path: Path) -> None:
    for layer, test in (("build", "a/b"), ("user0", "c/d")):
        path = tmp_path / layer / "usr/local/share/zfs/test-runner/bin/zts-report.py"
        path.parent.mkdir(parents=True)
        path.write_text(f"known = {{'{test}': ['FAIL', 1]}}\n")
    layers = [str(tmp_path / name) for name in ("kernel", "build", "user0")]
    assert list(read_lists(layers).known) == ["c/d"]
    assert list(read_lists(layers[:2]).known) == ["a/b"]
    assert read_lists(layers[:1]) == SuiteLists()


def test_a_cell_whose_failures_are_all_known_has_passed() -> None:
    text = line("rsend/rsend_001_pos", "PASS") + line("casenorm/mixed_none_lookup_ci", "FAIL")
    found = read(text + END)
    assert found.tests[1] == Subtest(
        name="functional/casenorm/mixed_none_lookup_ci",
        outcome=SubtestOutcome.FAILED_AS_EXPECTED,
        seconds=3,
        known=f"{ISSUES}7633",
    )
    for exit_code in (0, 1):
        assert judged(found, exit_code) == (Outcome.PASSED, "tests: 1 passed, 1 failed as expected")
    # Another status has another reason, and so has a signal.
    for exit_code, signal in ((2, None), (255, None), (137, 9)):
        assert judged(found, exit_code, signal)[0] is Outcome.FAILED
    assert found.flaky == ""
    # It ends with 1, too, where its runner failed before the summary.
    assert judged(read(text), 1)[0] is Outcome.FAILED
    worse = read(text + line("rsend/rsend_002_pos", "FAIL") + END)
    assert judged(worse, 1) == (Outcome.FAILED, "tests: 1 passed, 1 failed, 1 failed as expected")
    assert judged(worse, 0) == (Outcome.FAILED, "1 of 3 tests failed")
    # OpenZFS expects that it fails, not that it hangs.
    assert judged(read(line("casenorm/mixed_none_lookup_ci", "KILLED")), 1)[0] is Outcome.FAILED


def test_what_fails_now_and_then_is_flaky() -> None:
    found = read(line("history/history_004_pos", "FAIL"))
    assert judged(found, 0)[0] is Outcome.PASSED
    assert found.flaky == "known to fail now and then, and failed: functional/history/history_004_pos"


def test_what_is_known_to_fail_and_passes_is_told() -> None:
    text = line("refreserv/refreserv_004_pos", "PASS") + line("history/history_004_pos", "PASS")
    assert read(text).known == [KnownUse(test="functional/refreserv/refreserv_004_pos", ran=1, failed=0)]
    assert judged(read(text), 0) == (Outcome.PASSED, "")


# What zfs-tests.sh 2.4.3 prints after the tests.
REPORT = """
Results Summary

Running Time:\t00:00:06

Tests with results other than PASS that are expected:
    FAIL casenorm/mixed_none_lookup_ci (https://github.com/openzfs/zfs/issues/7633)
    SKIP cli_root/zfs_share (Known (really) issue)

Tests with result of PASS that are unexpected:
    PASS refreserv/refreserv_004_pos (expected FAIL)

Tests with results other than PASS that are unexpected:
    FAIL history/history_004_pos (expected PASS)
    FAIL rsend/rsend_001_pos (expected PASS)
"""


def test_what_the_report_of_the_suite_says_wins() -> None:
    names = ("casenorm/mixed_none_lookup_ci", "history/history_004_pos", "rsend/rsend_001_pos")
    text = "".join(line(name, "FAIL") for name in names)
    outcomes = [test.outcome for test in read(text + REPORT).tests]
    assert outcomes == [SubtestOutcome.FAILED_AS_EXPECTED, SubtestOutcome.FAILED, SubtestOutcome.FAILED]
    # Without the suite's own file the report is all that is known.
    assert read(text + REPORT, lists="").tests[0].known == f"{ISSUES}7633"
    assert [test.outcome.is_bad for test in read(text, lists="").tests] == [True, True, True]
    assert read("1..1\nok 1 a\n" + REPORT).known == []


def test_a_skip_that_the_suite_does_not_expect_is_named() -> None:
    text = (
        line("rsend/rsend_001_pos", "PASS")
        + line("io/psync", "SKIP")
        + REPORT
        + "    SKIP io/psync (expected PASS)\n"
    )
    text = text.replace("    FAIL rsend/rsend_001_pos (expected PASS)\n", "")
    said = "tests: 1 passed, 1 skipped; skipped, which the suite does not expect: functional/io/psync"
    assert judged(read(text), 1) == (Outcome.FAILED, said)
    assert judged(read(text), 0)[0] is Outcome.PASSED
    known = (KnownFailure(test="functional/io/*", why="no fio"),)
    assert judged(read(text, known=known), 1)[0] is Outcome.PASSED
    assert read(text, known=known).known[0] == KnownUse(test="functional/io/*", ran=1, failed=1)
    # What is known of another test does not excuse it.
    both = line("casenorm/mixed_none_lookup_ci", "FAIL") + text
    assert judged(read(both), 1)[0] is Outcome.FAILED
    assert judged(read(both, known=known), 1)[0] is Outcome.PASSED


def test_a_profile_knows_failures_of_what_it_provides() -> None:
    known = [one for one in known_by("ztest") if one.is_for("6.1", "s390x", None)]
    assert not [one for one in known_by("ztest") if one.is_for("6.1", "x86_64", None)]
    dedup = "functional/rsend/recv_dedup"

    def found(text: str, *own: KnownFailure) -> Subtests:
        return parse(io.BytesIO((text + END).encode()), known=own, known_quietly=known)

    both = found(line("rsend/recv_dedup", "FAIL") + line("rsend/rsend_001_pos", "PASS"))
    assert judged(both, 1) == (Outcome.PASSED, "tests: 1 passed, 1 failed as expected")
    # Nothing is said of what did not run.
    assert both.known == [KnownUse(test=dedup, ran=1, failed=1)]
    assert found(line("rsend/recv_dedup", "PASS")).known == [KnownUse(test=dedup, ran=1, failed=0)]
    # The matrix has the last word, and is told which of its globs fit nothing.
    mine = [KnownFailure(test=dedup, why="mine"), KnownFailure(test="x", why="nothing")]
    ours = found(line("rsend/recv_dedup", "FAIL"), *mine)
    assert ours.tests[0].known == "mine"
    assert [(use.test, use.ran) for use in ours.known] == [(dedup, 1), (dedup, 1), ("x", 0)]


@pytest.mark.parametrize(
    ("text", "glob", "exit_code", "outcome"),
    [
        ("1..2\nok 1 a/x\nnot ok 2 b/y\n", "b/*", 0, Outcome.PASSED),
        ("1..2\nok 1 a/x\nnot ok 2 b/y\n", "b/*", 1, Outcome.PASSED),
        ("1..2\nnot ok 1 a/x\nnot ok 2 b/y\n", "*", 2, Outcome.PASSED),
        ("1..2\nnot ok 1 a/x\nnot ok 2 b/y\n", "b/*", 1, Outcome.FAILED),
        ("1..2\nok 1 a/x\nnot ok 2 b/y # TIMEOUT\n", "b/*", 0, Outcome.PASSED),
        ("1..3\nok 1 a/x\nnot ok 2 b/y\n", "b/*", 1, Outcome.FAILED),
        ("1..2\nok 1 a/x\nnot ok 2 b/y\n", "B/*", 0, Outcome.FAILED),
        (line("rsend/rsend_001_pos", "KILLED") + END, "functional/rsend/*", 1, Outcome.PASSED),
        ("1..1\nok 1 a/x\n", "a/*", 1, Outcome.FAILED),
    ],
)
def test_a_matrix_may_know_failures_in_any_format(
    text: str, glob: str, exit_code: int, outcome: Outcome
) -> None:
    known = (KnownFailure(test=glob, why="#1"),)
    assert judged(read(text, known=known), exit_code)[0] is outcome


def result(cell: str, *known: KnownUse, outcome: Outcome = Outcome.PASSED) -> CellResult:
    kernel, _, arch = cell.partition("@")[0].partition("-")
    return CellResult(
        cell=cell,
        kernel=kernel,
        release=None,
        arch=arch,
        variant=None,
        shard=cell.partition("@")[2] or None,
        accelerator=Accelerator.TCG,
        outcome=outcome,
        subtests={"passed": 1},
        known=list(known),
    )


def test_a_glob_that_fits_nothing_is_said_once() -> None:
    unmet, met = KnownUse(test="nothing/*", ran=0, failed=0), KnownUse(test="a/*", ran=3, failed=1)
    cells = [result("6.1-s390x", unmet, met), result("6.1-x86_64", unmet)]
    assert grid.known_lines(cells) == ["Known failures that fit no test that ran: nothing/*"]
    # A cell that came to no end, or ran no tests, says nothing.
    cut_short = result("6.1-s390x", unmet, outcome=Outcome.PANICKED)
    assert grid.known_lines([cut_short]) == []
    # What fits in one cell fits.
    some = KnownUse(test="nothing/*", ran=1, failed=1)
    assert grid.known_lines([result("6.1-s390x", unmet), result("6.1-x86_64", some)]) == []


def test_slices_of_a_cell_are_one_for_what_is_known() -> None:
    passed, failed = KnownUse(test="a/*", ran=2, failed=0), KnownUse(test="a/*", ran=2, failed=1)
    slices = [result("6.1-s390x@1of2", passed), result("6.1-s390x@2of2", failed)]
    assert grid.known_lines(slices) == []
    assert grid.known_lines([*slices, result("6.1-x86_64", passed), result("6.12-x86_64", passed)]) == [
        "Known to fail, and passed on 6.1-x86_64, 6.12-x86_64: a/*"
    ]


def test_it_comes_from_the_matrix_to_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        'kernels = ["6.1", "6.12"]\narches = ["x86_64", "s390x"]\n'
        'known = [{ test = "functional/rsend/*", arch = "s390x", kernel = "6.1*", why = "#12" },\n'
        '         { test = "x", kernel = "6.12", why = "#13" }]\n'
    )
    matrix = load_matrix(path)
    known = {cell.id: [one.why for one in cell.known] for cell in expand(matrix, "m")}
    assert known == {
        "6.1-x86_64": [],
        "6.1-s390x": ["#12"],
        "6.12-x86_64": ["#13"],
        "6.12-s390x": ["#12", "#13"],
    }
    (spot,) = cells_on_the_spot(["6.1.9-s390x"], Limits(), matrix)
    assert [one.why for one in spot.known] == ["#12"]


def test_the_report_counts_them() -> None:
    known = "failed-as-expected"
    counts = {
        "6.1-s390x@1of2": {"passed": 800, known: 4},
        "6.1-s390x@2of2": {"passed": 12, known: 5},
        "6.1-x86_64": {"passed": 1},
    }
    cells = [msgspec.structs.replace(result(cell), subtests=found) for cell, found in counts.items()]
    assert grid.notes(cells) == "Tests on 6.1-s390x: 812 passed, 9 failed as expected"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('known = [{ test = "a" }]', "why"),
        ('known = [{ why = "a" }]', "test"),
        ('known = [{ test = "", why = "b" }]', "`known.test`: is empty"),
        ('known = [{ tests = "a", why = "b" }]', "test"),
    ],
)
def test_a_matrix_that_is_wrong_says_where(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(f'kernels = ["6.1"]\narches = ["s390x"]\n{text}\n')
    with pytest.raises(DataError) as caught:
        load_matrix(tmp_path / "m.toml")
    assert said in str(caught.value)
    assert "line 3" in str(caught.value)
