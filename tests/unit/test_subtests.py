"""Tests inside a command's output, and what they change about its exit status."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.subtest import MAX_NAMED, Subtest, SubtestOutcome
from quizmatrix.run.channel import Message
from quizmatrix.run.verdict import Evidence, judge
from quizmatrix.subtests import reading
from quizmatrix.subtests.reading import parse
from quizmatrix.subtests.summary import Subtests

KTAP = """\
KTAP version 1
1..3
  KTAP version 1
  1..2
    KTAP version 1
    1..1
    # first: setting up
    ok 1 case
  ok 1 first
    KTAP version 1
    # Subtest: second
    1..2
    ok 1 case # SKIP no such device
    not ok 2 other
  not ok 2 second
not ok 1 main
    # Subtest: aged
    1..1
    ok 1 - case
ok 2 - aged
not ok 3 slow # TIMEOUT 45 seconds
"""

RUNNER = """\
Test: /usr/share/zfs/zfs-tests/tests/functional/acl/setup (run as root) [00:01] [PASS]
[2026-11-25T02:58:36.42] Test: /usr/zfs-tests/tests/functional/acl/acl_001_pos (run as staff) [00:03] [FAIL]
Test: /usr/share/zfs/zfs-tests/tests/functional/acl/acl_002_pos (run as root)  [10:00] [KILLED]
Test (Linux): /usr/share/zfs/zfs-tests/tests/functional/acl/setup (run as root) [00:00] [SKIP]
Test: /home/me/own test (run as root)                              [00:00] [PASS] (RERAN)
Test: /usr/share/zfs/zfs-tests/tests/functional/acl/acl_001_pos (run as staff) [00:02] [PASS]

Results Summary
PASS\t   3
FAIL\t   1
SKIP\t   1
KILLED\t   1

Running Time:\t00:10:06
Percent passed:\t50.0%
Log directory:\t/var/tmp/test_results/20261120T101010
"""


def read(text: str) -> Subtests:
    return parse(io.BytesIO(text.encode()))


def judged(tests: Subtests, exit_code: int) -> tuple[Outcome, str]:
    ended = Message(event="exited", exit_code=exit_code)
    return judge(Evidence(ended=ended, tests=tests.summed_up), ConsoleWatch())


def listed(text: str) -> dict[str, str]:
    return {test.name: str(test.outcome) for test in read(text).tests}


def test_nested_tests() -> None:
    assert listed(KTAP) == {
        "main/first/case": "passed",
        "main/second/case": "skipped",
        "main/second/other": "failed",
        "aged/case": "passed",
        "slow": "killed",
    }
    assert read(KTAP).failure == "1 of 5 tests failed; 1 of 5 tests were killed"
    assert read(KTAP).summary == "tests: 2 passed, 1 failed, 1 skipped, 1 killed"


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        ("1..2\nok 1 - a\nnot ok 2 - b # exit=1\n", {"a": "passed", "b": "failed"}),
        ("ok 1 - a\r\nok\r\n1..2\r\n", {"a": "passed", "test 2": "passed"}),
        ("TAP version 14\nok 1 - issue \\#1 and #2\n", {"issue #1 and #2": "passed"}),
        ("TAP version 13\nok 1 a # skip\nok 2 b #SKIP x\n", {"a": "skipped", "b": "skipped"}),
        ("TAP version 13\nnot ok 1 a # TODO x\nok 2 b # todo\n", {"a": "skipped", "b": "passed"}),
        ("TAP version 13\nok 1 a\nTAP version 13\nok 1 a\n", {"a": "passed", "a (2)": "passed"}),
        ("1..1\nok 1 a\n1..1\nok 1 b\n", {"a": "passed", "b": "passed"}),
        ("ok 1 a\n1..1\nok 1 b\n1..1\n", {"a": "passed", "b": "passed"}),
        ("ok go\nTAP version 13\n1..1\nok 1 a\n", {"a": "passed"}),
        ("1..0 # SKIP no disks\n", {"all tests": "skipped"}),
        # TAP 14: the comment stands outside, the plan may come last.
        ("TAP version 14\n# Subtest: o\n    ok 1 - i\n    1..1\nok 1 - o\n1..1\n", {"o/i": "passed"}),
        (
            "TAP version 14\n    # Subtest: o\n    1..1\n    not ok 1 i\nnot ok 1 o # TODO\n",
            {"o/i": "skipped"},
        ),
        # A suite that fails without a failed test, and one that was cut short.
        (
            "KTAP version 1\n  KTAP version 1\n  ok 1 i\nnot ok 1 o\n"
            "  KTAP version 1\n  # Subtest: p\n  ok 1 i\n",
            {"o/i": "passed", "o": "failed", "p/i": "passed"},
        ),
        # KUnit's results in debugfs.
        ("    KTAP version 1\n    # Subtest: s\n    1..1\n    ok 1 c\nok 1 s\n", {"s/c": "passed"}),
    ],
)
def test_tap(text: str, tests: dict[str, str]) -> None:
    assert listed(text) == tests
    assert read(text).missing == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok\n",
        "ok 1 fine\nnot ok\n",
        "1..5\n",
        "  1..5\n  ok 1 a\n",
        "Bail out!\n",
        "# Subtest: x\n",
        "PASS 3\n",
    ],
)
def test_what_is_no_known_format(text: str) -> None:
    assert read(text) == Subtests()
    assert read(text).failure == ""


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("1..4\nok 1 a\nnot ok 2 b\n", "1 of 4 tests failed; 2 of 4 tests did not run"),
        ("KTAP version 1\n1..1\n  KTAP version 1\n  1..3\n  ok 1 a\nok 1 s\n", "2 of 3 tests did not run"),
        ("1..2\nok 1\nBail out! no disk\n", "the tests bailed out: no disk; 1 of 2 tests did not run"),
        ("TAP version 13\n", "no test ran"),
        ("TAP version 13\n1..0\n", "no test ran"),
        ("1..1\nok 1 a\n", ""),
        ("1..0 # Skipped: no disk\n", ""),
        ("Results Summary\n\nRunning Time:\t00:00:00\n", "no test ran"),
        ("\nTests with results other than PASS that are expected:\n", "no test ran"),
        (
            "\n\nNo test results were found.\nLog directory: Could not determine log directory.\n",
            "no test ran",
        ),
        # With -q the report lists no tests if the runner named none.
        ("Results Summary\nPASS\t2\n\nRunning Time:\t00:00:01\n\n\nNo test results were found.\n", ""),
        ("Running Time: long\n", ""),
    ],
)
def test_what_makes_a_run_of_tests_fail(text: str, failure: str) -> None:
    assert read(text).failure == failure


def test_the_runner_of_openzfs() -> None:
    assert read(RUNNER).tests == [
        Subtest(name="functional/acl/setup", outcome=SubtestOutcome.PASSED, seconds=1),
        Subtest(
            name="functional/acl/acl_001_pos", outcome=SubtestOutcome.PASSED, failed_before=True, seconds=2
        ),
        Subtest(name="functional/acl/acl_002_pos", outcome=SubtestOutcome.KILLED, seconds=600),
        Subtest(name="functional/acl/setup (Linux)", outcome=SubtestOutcome.SKIPPED, seconds=0),
        Subtest(name="/home/me/own test", outcome=SubtestOutcome.PASSED, failed_before=True, seconds=0),
    ]
    assert read(RUNNER).failure == "1 of 5 tests were killed"
    assert read(RUNNER).unnamed == {}


def test_a_quiet_runner_counts_what_it_does_not_name() -> None:
    quiet = "".join(line for line in RUNNER.splitlines(keepends=True) if "[PASS]" not in line)
    assert read(quiet).counts == {"passed": 3, "failed": 1, "skipped": 1, "killed": 1}
    assert read(quiet * 2).counts["passed"] == 6


@given(st.binary(max_size=300))
@example(b"TAP version 13\n1..99999999999999999999\nok 99999999999999999999\n")
@example(b"1..2\nok \xff\xfe\x00\x1b[31m\xe2\x80\xae\nok\x00 2\n")
def test_any_bytes(data: bytes) -> None:
    for text in (data, b"TAP version 13\n" + data, RUNNER.encode() + data):
        for test in parse(io.BytesIO(text)).tests:
            assert test.name.isprintable() or "\ufffd" in test.name or not test.name.isascii()


WORDS = [
    "ok 1 a",
    "not ok b # TODO x",
    "ok # SKIP",
    "1..3",
    "1..0 # skip",
    "KTAP version 1",
    "# Subtest: s",
    "x",
]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([*WORDS, "Bail out!"])), max_size=40))
def test_no_test_is_lost(lines: list[tuple[int, str]]) -> None:
    found = read("TAP version 13\n" + "".join("  " * depth + text + "\n" for depth, text in lines))
    assert found.is_known
    assert found.missing >= 0
    assert len({test.name for test in found.tests}) == len(found.tests)
    failing = [text for depth, text in lines if depth == 0 and text.startswith("not ok")]
    assert not failing or found.counts


def test_a_flood() -> None:
    many = parse(io.BytesIO(b"1..300000\n" + b"ok - the same\n" * 300_000))
    assert len(many.tests) == MAX_NAMED
    assert many.counts == {"passed": 300_000}
    assert many.failure == ""
    long = parse(io.BytesIO(b"1..2\nok 1 " + b"x" * (3 << 20) + b"\nok 2 b\n"))
    assert [len(test.name) < 300 for test in long.tests] == [True, True]
    runner = b"".join(
        b"Test: /t/%d (run as root) [00:00] [%s]\n" % (n, b"FAIL" if n >= 2000 else b"PASS")
        for n in range(2050)
    )
    ran = parse(io.BytesIO(runner + b"Results Summary\nFAIL\t50\nPASS\t2000\n"), max_named=2000)
    assert len(ran.tests) == 2000
    assert ran.counts == {"passed": 2000, "failed": 50}
    assert ran.limits == ["of 2,050 tests the first 2,000 are kept by name"]
    assert many.limits == ["of 300,000 tests the first 200,000 are kept by name"]
    deep = b"TAP version 13\n" + b"".join(b" " * n + b"KTAP version 1\n" for n in range(3000)) + b"ok 1 a\n"
    assert parse(io.BytesIO(deep)).counts == {"passed": 1}


def test_a_part_of_the_output_lacks_nothing(tmp_path: Path) -> None:
    assert reading.read(tmp_path / "none") == Subtests()
    (tmp_path / "stdout").write_text("1..9\nok 1 a\n")
    assert reading.read(tmp_path / "stdout").failure == "8 of 9 tests did not run"
    assert reading.read(tmp_path / "stdout", is_whole=False).failure == ""
    (tmp_path / "stdout").write_text("TAP version 13\n")
    assert reading.read(tmp_path / "stdout", is_whole=False).failure == ""


@pytest.mark.parametrize("content", [None, b"", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_list_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / reading.FILE).write_bytes(content)
    assert reading.load(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "exit_code", "outcome", "detail"),
    [
        ("1..1\nok 1 a\n", 0, Outcome.PASSED, ""),
        ("1..2\nok 1 a\nnot ok 2 b\n", 0, Outcome.FAILED, "1 of 2 tests failed"),
        ("1..2\nok 1 a\n", 0, Outcome.FAILED, "1 of 2 tests did not run"),
        ("TAP version 13\n", 0, Outcome.FAILED, "no test ran"),
        ("1..3\nok 1 a\nnot ok 2 b\n", 4, Outcome.FAILED, "tests: 1 passed, 1 failed, 1 not run"),
        ("no tests here\n", 4, Outcome.FAILED, ""),
        ("no tests here\n", 0, Outcome.PASSED, ""),
    ],
)
def test_the_verdict(text: str, exit_code: int, outcome: Outcome, detail: str) -> None:
    assert judged(read(text), exit_code) == (outcome, detail)
