"""The results of LTP, xfstests and blktests, as their runners print them."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.model.known import KnownFailure
from quizmatrix.model.subtest import Subtest
from quizmatrix.subtests import running
from quizmatrix.subtests.reading import parse
from quizmatrix.subtests.summary import Subtests

# A program by itself, of LTP's new library, of its old one, and a script.
PROGRAMS = """\
tst_test.c:1558: TINFO: Timeout per run is 0h 00m 30s
fork01.c:35: TPASS: child exited with 0
fork01.c:36: TFAIL: pid is not that of the child

Summary:
passed   1
failed   1
broken   0
skipped  0
warnings 0
tst_kconfig.c:88: TINFO: Parsing kernel config '/boot/config'
bpf01.c:20: TPASS: loaded
bpf01.c:21: TCONF: no such program type

Summary:
passed   1
swapon02    1  TCONF  :  swapon02.c:12: the file system has no swap files
swapon02    2  TINFO  :  nothing else
df01 1 TPASS: 'df' passed.
df01 2 TBROK: it ended with 1
"""

PAN = """\
<<<test_start>>>
tag=abs01 stime=1764494000
cmdline="abs01"
contacts=""
analysis=exit
<<<test_output>>>
abs01.c:20: TPASS: abs(1)
incrementing stop
<<<execution_status>>>
initiation_status="ok"
duration=1 termination_type=exited termination_id=0 corefile=no
cutime=0 cstime=0
<<<test_end>>>
<<<test_start>>>
tag=bad01 stime=1764494001
<<<test_output>>>
fork01.c:36: TFAIL: a program of another name
<<<execution_status>>>
duration=75 termination_type=exited termination_id=1 corefile=no
<<<test_end>>>
<<<test_start>>>
tag=conf01 stime=1764494001
<<<execution_status>>>
duration=0 termination_type=exited termination_id=32 corefile=no
<<<test_end>>>
<<<test_start>>>
tag=sig01 stime=1764494001
<<<execution_status>>>
duration=0 termination_type=signaled termination_id=11 corefile=no
<<<test_end>>>
<<<test_start>>>
tag=last01 stime=1764494001
<<<test_output>>>
last01.c:9: TPASS: so far
"""

# kirk 4.2, which colours also what is no terminal's, and ends with 0 whatever failed.
KIRK = """\
Connecting to SUT: default

Suite: toy
──────────
\x1b[1;37mgood01: \x1b[0m\x1b[1;32mpass\x1b[0m  (0.002s)
\x1b[1;37mbad01: \x1b[0m\x1b[1;31mfail\x1b[0m | \x1b[1;33mtainted\x1b[0m  (1m 6s)
\x1b[1;37mbrok01: \x1b[0m\x1b[1;31mbroken\x1b[0m  (1h 0m 1s)
\x1b[1;37mconf01: \x1b[0m\x1b[1;36mskip\x1b[0m  (0.005s)
\x1b[1;37mslow01: \x1b[0m\x1b[1;31mtimed out\x1b[0m
gone01: kernel panic

Execution time: 2.315s
"""

KIRK_VERBOSE = """\
Suite: toy
──────────
─────────────────────
      conf01
─────────────────────
Executing: conf01 -a x

tst_test.c:1558: TINFO: Timeout per run is 0h 00m 30s
conf01.c:42: TCONF: something happened

Summary:
passed   0
skipped  1

Duration: 0.006s

─────────────────────
      sig01
─────────────────────
Executing: /opt/ltp/testcases/bin/sig01


Summary:
passed    0
failed    1
broken    0
skipped   0
warnings  0

Duration: 0.001s

Execution time: 0.3s
"""

# kirk -w 2: only its end says what failed.
KIRK_PARALLEL = """\
Suite: toy
──────────
Following tests will run in parallel:
• bad01
• good01

\x1b[1;37mgood01 (1/2): \x1b[0m  (0.002s)
bad01 (2/2):  | tainted  (0.100s)
slow01: timed out
lost01: next01: pass  (1.2s)

Execution time: 0.204s

Failures:
    • bad01

"""

KIRK_JSON = """\
{
    "results": [
        {
            "test_fqn": "good01",
            "status": "pass",
            "test": {
                "log": "good01.c:42: TPASS: something happened\\n",
                "duration": 0.0054264068603515625,
                "result": "pass"
            }
        },
        {
            "test_fqn": "warn01",
            "status": "warn",
            "test": {
                "duration": 2.0120396614074707,
                "result": "warn"
            }
        }
    ]
}
"""

XFSTESTS = """\
SECTION       -- quota
FSTYP         -- xfs (debug)
PLATFORM      -- Linux/s390x guest 6.1.0 #1 SMP
MKFS_OPTIONS  -- -f /dev/quizb1
MOUNT_OPTIONS -- /dev/quizb1 /mnt/scratch

generic/001 3s ...  4s
generic/002\t[not run] this test requires a valid $SCRATCH_DEV
generic/003       [expunged]
generic/004 1s ... [failed, exit status 1]- output mismatch (see /tmp/results/quota/generic/004.out.bad)
    --- tests/generic/004.out\t2026-01-01 00:00:00
    +++ /tmp/results/quota/generic/004.out.bad\t2026-01-01 00:00:00
    @@ -1,2 +1,2 @@
    -generic/001 4s
    ...
    (Run 'diff -u tests/generic/004.out 004.out.bad'  to see the entire diff)
generic/005 2s ...  1s
_check_dmesg: something found in dmesg (see /tmp/results/quota/generic/005.dmesg)
generic/006 - output mismatch (see /tmp/results/quota/generic/006.out.bad)
xfs/1001 0s
Ran: generic/001 generic/002 generic/004 generic/005 generic/006 xfs/1001
Not run: generic/002
Failures: generic/004 generic/005 generic/006
Failed 3 of 6 tests

"""

BLKTESTS = """\
block/001 (stress device hotplugging)
    runtime  9.100s  ...
block/001 (stress device hotplugging)                        [passed]
    runtime  9.100s  ...  12.034s
block/002 (remove a device while running blktrace)
block/002 (remove a device while running blktrace)           [failed]
    runtime    ...  1.200s
    --- tests/block/002.out\t2026-01-01 00:00:00
    +++ /opt/blktests/results/nodev/block/002.out.bad\t2026-01-01
    @@ -1,2 +1,3 @@
     Running block/002
loop/009 (check that LOOP_CONFIGURE sends uevents)           [not run]
    /dev/loop-control cannot be used
md/003 => nvme1n1 nvme2n1 (test md atomic writes for NVMe drives) [passed]
    runtime  18.678s  ...  18.446s
nvme/003 (tr=loop) (test if we are sending (some) keep-alives)  [failed]
nvme/003 (tr=tcp) (test if we are sending (some) keep-alives)  [passed]
zbd/***                                                      [not run]
    kernel option BLK_DEV_ZONED has not been enabled
"""


def read(text: str, *, is_whole: bool = True) -> Subtests:
    return parse(io.BytesIO(text.encode()), is_whole=is_whole)


def outcomes(found: Subtests) -> dict[str, str]:
    return {test.name: str(test.outcome) for test in found.tests}


def test_ltp_programs() -> None:
    assert outcomes(read(PROGRAMS)) == {
        "fork01": "failed",
        "bpf01": "passed",
        "swapon02": "skipped",
        "df01": "failed",
    }
    # Of a program that runs again the worse result counts; what its library and headers say is its own.
    again = "a01.c:1: TFAIL: no\n\nSummary:\nfailed   1\na01.c:1: TPASS: yes\n"
    assert outcomes(read(again)) == {"a01": "failed"}
    for line in (
        "tst_test.c:9: TBROK: killed",
        "../include/lapi/x.h:25: TBROK: no",
        "fanotify.h:5: TFAIL: x",
    ):
        assert outcomes(read(f"a01.c:1: TPASS: yes\n{line}\n")) == {"a01": "failed"}
    # A helper's lines do not make it better, and what nobody else told is in the summary.
    helper = "a01.c:1: TFAIL: x\na01_child.c:5: TPASS: y\na01.c:2: TPASS: z\n"
    assert outcomes(read(helper))["a01"] == "failed"
    assert outcomes(read("a01.c:1: TPASS: x\nSummary:\npassed   1\nbroken   1\n")) == {"a01": "failed"}
    # The library alone.
    alone = "tst_test.c:1: TBROK: no\nSummary:\nbroken   1\ntst_kconfig.c:2: TCONF: no\nSummary:\n"
    assert outcomes(read(alone)) == {"ltp": "failed"}
    assert outcomes(read("a01.c:1: \x1b[1;31mTFAIL: \x1b[0mno\n")) == {"a01": "failed"}


def test_ltp_pan() -> None:
    found = read(PAN)
    assert outcomes(found) == {"abs01": "passed", "bad01": "failed", "conf01": "skipped", "sig01": "failed"}
    assert found.tests[1].seconds == 75
    # The test without an end was running.
    assert found.running == "last01"
    assert found.suite_end.is_unfinished


def test_what_a_test_of_pans_prints_is_not_its_result() -> None:
    for printed in (
        "client: fail",
        "Executing: other",
        "tag=5 stime=3",
        "a.c:1: TFAIL: x",
        "duration=1 termination_type=x",
    ):
        found = read(PAN.replace("incrementing stop", printed))
        assert outcomes(found)["abs01"] == "passed", printed
        assert len(found.tests) == 4


def test_kirk() -> None:
    found = read(KIRK)
    assert outcomes(found) == {
        "good01": "passed",
        "bad01": "failed",
        "brok01": "failed",
        "conf01": "skipped",
        "slow01": "killed",
        "gone01": "failed",
    }
    assert [test.seconds for test in found.tests[:3]] == [0.002, 66, 3601]
    assert found.failure == "3 of 6 tests failed; 1 of 6 tests were killed"
    assert not found.suite_end.is_unfinished
    assert read(KIRK.partition("Execution")[0]).suite_end.is_unfinished
    assert outcomes(read(KIRK_VERBOSE)) == {"conf01": "skipped", "sig01": "failed"}
    # A program's own summary has no numbers that kirk's would repeat; its lists say what failed.
    odd = KIRK_VERBOSE.replace("Summary:\npassed   0\nskipped  1\n", "Summary: 10 files\n")
    assert outcomes(read(odd))["conf01"] == "passed"
    assert outcomes(read(odd + "Broken:\n    • conf01\n"))["conf01"] == "failed"


def test_kirk_in_parallel() -> None:
    assert outcomes(read(KIRK_PARALLEL)) == {
        "good01": "passed",
        "bad01": "failed",
        "slow01": "killed",
        "lost01": "failed",
        "next01": "passed",
    }


@pytest.mark.parametrize(
    "text",
    [
        "Test Suite: smoke\nExecuting: ./a\nDuration: 1.2s\n",
        "Suite: smoke\nExecuting: ./a\nDuration: 1.2s\n",
        "Cipher Suite: X\nExecuting: make\n",
        "disk [passed]\nnetwork: fail (fallback used)\n",
        "TPASS\nverify: pass  (retry)\nSummary:\nfailed 3\n",
        "Suite: x\n--------\na: fail  (0.1s)\n",
    ],
)
def test_other_programs_have_no_tests(text: str) -> None:
    assert not read(text).is_known
    tap = read("TAP version 13\n1..1\nok 1 a\n" + text)
    assert outcomes(tap) == {"a": "passed"}


def test_kirks_report() -> None:
    found = read(KIRK_JSON)
    assert outcomes(found) == {"good01": "passed", "warn01": "failed"}
    assert [test.seconds for test in found.tests] == [0.005, 2.012]


def test_xfstests() -> None:
    found = read(XFSTESTS)
    assert outcomes(found) == {
        "generic/001 (quota)": "passed",
        "generic/002 (quota)": "skipped",
        "generic/003 (quota)": "skipped",
        "generic/004 (quota)": "failed",
        "generic/005 (quota)": "failed",
        "generic/006 (quota)": "failed",
        "xfs/1001 (quota)": "passed",
    }
    assert found.tests[0].seconds == 4
    assert not found.suite_end.is_unfinished
    without = read(XFSTESTS.partition("\n")[2].partition("Failed 3")[0])
    assert "generic/001" in outcomes(without)
    assert without.suite_end.is_unfinished
    # Without its heading these lines may be anybody's.
    assert not read("generic/001 3s ...  4s\n[failed]\n").is_known


def test_an_xfstest_that_failed_only_in_the_summary_has_failed() -> None:
    text = "FSTYP         -- ext4\n\next4/001\t 3s\nFailures: ext4/001 ext4/009\nFailed 2 of 2 tests\n"
    assert outcomes(read(text)) == {"ext4/001": "failed", "ext4/009": "failed"}
    # check -L runs it again, and tells how often it failed.
    text = (
        "FSTYP         -- ext4\next4/001 - output mismatch (see x)\next4/001  3s\n"
        "ext4/001 aggregate results across 2 runs: fail=1 (50.0%), pass=1 (50.0%)\n"
    )
    assert outcomes(read(text)) == {"ext4/001": "failed"}


def test_xfstests_that_are_listed_or_tell_their_output() -> None:
    heading = "FSTYP         -- ext4\n"
    assert not read(heading + "generic/001 \ngeneric/002\n").tests
    told = heading + "generic/001        QA output created by 001\nwords\n 4s\n"
    assert outcomes(read(told + "Passed all 1 tests\n")) == {"generic/001": "passed"}
    assert outcomes(read(told + "Failures: generic/001\nFailed 1 of 1 tests\n")) == {"generic/001": "failed"}


def test_an_interrupted_xfstests_did_not_come_to_its_end() -> None:
    text = "FSTYP         -- ext4\next4/001  3s\nInterrupted!\nPassed all 1 tests\n"
    assert read(text).suite_end.is_unfinished
    assert not read(text.replace("Interrupted!\n", "")).suite_end.is_unfinished


def test_two_suites_in_one_output() -> None:
    both = read(XFSTESTS + BLKTESTS)
    assert {**outcomes(read(XFSTESTS)), **outcomes(read(BLKTESTS))} == outcomes(both)


def test_blktests() -> None:
    found = read(BLKTESTS)
    assert outcomes(found) == {
        "block/001": "passed",
        "block/002": "failed",
        "loop/009": "skipped",
        "md/003 (nvme1n1 nvme2n1)": "passed",
        "nvme/003 (tr=loop)": "failed",
        "nvme/003 (tr=tcp)": "passed",
        "zbd/***": "skipped",
    }
    assert [test.seconds for test in found.tests] == [12.034, 1.2, None, 18.446, None, None, None]
    begun = read(BLKTESTS + "block/005 => sda (switch schedulers)\n")
    assert begun.running == "block/005 (sda)"


def test_failures_that_the_matrix_knows() -> None:
    known = [KnownFailure(test="generic/00[456]*", why="no quota")]
    found = parse(io.BytesIO(XFSTESTS.encode()), known=known)
    assert not found.failure
    assert found.is_excused
    assert found.counts == {"passed": 2, "skipped": 2, "failed-as-expected": 3}


def test_output_that_ends_in_the_middle() -> None:
    for text in (PROGRAMS, PAN, KIRK, KIRK_VERBOSE, KIRK_PARALLEL, KIRK_JSON, XFSTESTS, BLKTESTS):
        whole = outcomes(read(text))
        for end in range(0, len(text), 7):
            cut = outcomes(read(text[:end], is_whole=False))
            assert set(cut) <= {*whole, "ltp"}, text[:end]


# Of many lines only their words are read, also where they are the longest.
HOSTILE = (
    "x/001" + " " * 4000 + "[passed",
    "a01.c:1: T" * 400,
    "runtime " + "1" * 4000 + "s",
    '"status": "' * 300,
)


@pytest.mark.parametrize("line", HOSTILE)
def test_lines_that_only_look_like_results(line: str) -> None:
    assert not read("\n".join(["TPASS [passed]", "FSTYP    -- x", *[line] * 200, ""])).tests


@given(
    st.lists(st.sampled_from("".join((PAN, KIRK, XFSTESTS, BLKTESTS, KIRK_JSON)).splitlines()), max_size=30)
)
def test_lines_in_any_order(lines: list[str]) -> None:
    found = read("\n".join(lines) + "\n")
    assert all(isinstance(test, Subtest) and test.name for test in found.tests)
    assert sum(found.counts.values()) >= len(found.tests)


@pytest.mark.parametrize("suite", ["fstests", "blktests"])
def test_the_test_that_was_running_is_in_the_kernels_log(suite: str, tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text(f"[    9.1] run {suite} block/001 at 2026-11-30 10:00:00\n[   12.2] Kernel panic\n")
    assert running.announced(console) == "block/001"
