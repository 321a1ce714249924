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
    # A program that runs again is the same test; what its library says is its own.
    again = "a01.c:1: TFAIL: no\n\nSummary:\nfailed   1\na01.c:1: TPASS: yes\ntst_test.c:9: TBROK: killed\n"
    (test,) = read(again.replace("tst_test.c:9: TBROK: killed\n", "")).tests
    assert (test.outcome, test.failed_before) == ("passed", True)
    assert outcomes(read(again)) == {"a01": "failed"}


def test_ltp_pan() -> None:
    found = read(PAN)
    assert outcomes(found) == {"abs01": "passed", "bad01": "failed", "conf01": "skipped", "sig01": "failed"}
    assert found.tests[1].seconds == 75
    # The test without an end was running.
    assert found.running == "last01"
    assert found.suite_end.is_unfinished


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
    assert outcomes(read(KIRK_VERBOSE)) == {"conf01": "skipped", "sig01": "failed"}


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
    text = "FSTYP         -- ext4\n\next4/001\t 3s\nFailures: ext4/001 ext4/999\nFailed 1 of 1 tests\n"
    assert outcomes(read(text)) == {"ext4/001": "failed"}
    # check -L runs it again, and tells how often it failed.
    text = (
        "FSTYP         -- ext4\next4/001 - output mismatch (see x)\next4/001  3s\n"
        "ext4/001 aggregate results across 2 runs: fail=1 (50.0%), pass=1 (50.0%)\nFailures: ext4/001\n"
    )
    (test,) = read(text).tests
    assert (test.outcome, test.failed_before) == ("passed", True)


def test_blktests() -> None:
    found = read(BLKTESTS)
    assert outcomes(found) == {
        "block/001": "passed",
        "block/002": "failed",
        "loop/009": "skipped",
        "md/003 (nvme1n1 nvme2n1)": "passed",
        "zbd/***": "skipped",
    }
    assert [test.seconds for test in found.tests] == [12.034, 1.2, None, 18.446, None]
    begun = read(BLKTESTS + "block/005 => sda (switch schedulers)\n")
    assert begun.running == "block/005 (sda)"


def test_failures_that_the_matrix_knows() -> None:
    known = [KnownFailure(test="generic/00[456]*", why="no quota")]
    found = parse(io.BytesIO(XFSTESTS.encode()), known=known)
    assert not found.failure
    assert found.is_excused
    assert found.counts == {"passed": 2, "skipped": 2, "failed-as-expected": 3}


def test_output_that_ends_in_the_middle() -> None:
    for text in (PROGRAMS, PAN, KIRK, KIRK_VERBOSE, KIRK_JSON, XFSTESTS, BLKTESTS):
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
    assert not read("\n".join(["TPASS [passed] FSTYP  ", *[line] * 200, ""])).tests


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
