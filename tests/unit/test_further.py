"""Further guests of one cell, and what becomes of their results; the guests are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from quizmatrix.core.errors import HostError
from quizmatrix.core.json import to_json
from quizmatrix.model.finding import FindingKind, FindingSummary, SplatPolicy
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, Timings
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.model.testchoice import TestChoice
from quizmatrix.schedule.further import MOST_CRASHES, FurtherGuests
from quizmatrix.schedule.joining import Part, with_rerun
from quizmatrix.subtests import reading, running
from quizmatrix.subtests.selecting import SELECTS_TESTS, selects_tests

# What each test does in a guest.
Suite = dict[str, str]


class Guests:
    """Guests that run a suite in its order.

    `X` ends the guest, `L` QEMU; `F` fails, `F1` the first time, and `S1` then also stops the suite.
    """

    def __init__(self, folder: Path, suite: Suite, *, heeds: bool = True, seconds: float = 10.0) -> None:
        """heeds: whether the suite selects tests. seconds: that a guest's command takes."""
        self.folder = folder
        self.ran: dict[str, list[str]] = {}
        self.limits: list[float] = []
        self.findings: list[FindingSummary] = []
        self._suite = suite
        self._heeds = heeds
        self._seconds = seconds
        self._seen: set[str] = set()

    async def run(self, name: str, choice: TestChoice, limit: float) -> CellResult:
        await anyio.lowlevel.checkpoint()
        place = self.folder / name
        place.mkdir(exist_ok=True)
        self.limits.append(limit)
        begun: list[str] = []
        done: list[Subtest] = []
        outcome = Outcome.PASSED
        for test, fate in self._suite.items():
            if self._heeds and ((choice.only and test not in choice.only) or test in choice.skip):
                continue
            begun.append(test)
            if fate in ("X", "L"):
                outcome = Outcome.PANICKED if fate == "X" else Outcome.LOST
                break
            fails = fate == "F" or (fate in ("F1", "S1") and test not in self._seen)
            self._seen.add(test)
            word = SubtestOutcome.FAILED if fails else SubtestOutcome.PASSED
            done.append(Subtest(name=test, outcome=word, seconds=1.0))
            if fails and fate == "S1":
                break
        self.ran[name] = begun
        if outcome is Outcome.PASSED and any(test.outcome.is_bad for test in done):
            outcome = Outcome.FAILED
        (place / "stdout").write_bytes(SELECTS_TESTS + b"\n" if self._heeds else b"")
        lines = [f"[    1.0] quizmatrix: begins {test}\r\n" for test in begun]
        (place / "console.log").write_text("".join(lines) + "[    2.0] Kernel panic\n")
        (place / reading.FILE).write_bytes(to_json(done))
        has_ended = outcome in (Outcome.PASSED, Outcome.FAILED)
        counts = {word: sum(test.outcome == word for test in done) for word in ("passed", "failed")}
        return CellResult(
            cell="6.1-s390x",
            kernel="6.1",
            release="6.1.0",
            arch="s390x",
            variant=None,
            accelerator=None,
            outcome=outcome,
            exit_code=int(outcome is not Outcome.PASSED) if has_ended else None,
            detail="" if outcome is Outcome.PASSED else f"it {outcome}",
            subtests={word: count for word, count in counts.items() if count},
            findings=self.findings,
            timings=Timings(boot=1.0, profiles=1.0, total=self._seconds + 2.0),
        )


Complete = Callable[..., CellResult]


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """Runs a suite in a first guest and in further ones."""

    def run(guests: Guests, reruns: int = 0, timeout: float = 1000.0, **more: Any) -> CellResult:
        async def play() -> CellResult:
            first = await guests.run("", TestChoice(), timeout)
            further = FurtherGuests(tmp_path, TestChoice(), timeout, more.get("run", guests.run), print)
            return await further.complete(first, reruns, SplatPolicy.FAIL)

        return anyio.run(play)

    return run


def outcomes(folder: Path) -> dict[str, str]:
    return {
        test.name: str(test.outcome) + (" again" if test.failed_before else "")
        for test in reading.load(folder)
    }


def test_the_rest_of_a_crashed_guest_runs_in_new_ones(tmp_path: Path, complete: Complete) -> None:
    guests = Guests(tmp_path, {"a": "", "b": "X", "c": "F", "d": "L", "e": ""})
    result = complete(guests)
    assert guests.ran == {"": ["a", "b"], "rest-1": ["c", "d"], "rest-2": ["e"]}
    assert (result.outcome, result.exit_code) == (Outcome.PANICKED, None)
    assert result.detail == "it panicked; while b, d ran; the rest ran in 2 more guests"
    assert result.further == ["rest-1", "rest-2"]
    # A test of a guest that the host lost is no failure of the kernel's.
    assert outcomes(tmp_path) == {"a": "passed", "b": "failed", "c": "failed", "d": "killed", "e": "passed"}
    assert result.subtests == {"passed": 2, "failed": 2, "killed": 1}
    # All guests share the time of the command.
    assert guests.limits == [1000.0, 990.0, 980.0]
    assert (result.timings.command, result.timings.total) == (30.0, 36.0)


def test_what_does_not_select_tests_does_not_go_on(tmp_path: Path, complete: Complete) -> None:
    guests = Guests(tmp_path, {"a": "", "b": "X", "c": ""}, heeds=False)
    result = complete(guests)
    assert list(guests.ran) == [""]
    assert (result.outcome, result.detail, result.further) == (Outcome.PANICKED, "it panicked", [])


def test_crashes_have_a_bound(tmp_path: Path, complete: Complete) -> None:
    guests = Guests(tmp_path, {f"t{number}": "X" for number in range(MOST_CRASHES + 4)})
    result = complete(guests)
    assert len(guests.ran) == MOST_CRASHES + 1
    assert f"{MOST_CRASHES + 1} guests crashed: what they had not come to did not run" in result.detail
    assert result.subtests == {"failed": MOST_CRASHES + 1}


def test_the_time_of_the_command_is_no_longer_for_several_guests(tmp_path: Path, complete: Complete) -> None:
    guests = Guests(tmp_path, {"a": "X", "b": "X", "c": ""}, seconds=10.0)
    result = complete(guests, timeout=20.5)
    assert list(guests.ran) == ["", "rest-1"]
    assert "its time was over: what it had not come to did not run" in result.detail


def test_a_test_that_ends_its_guest_although_it_is_skipped(tmp_path: Path, complete: Complete) -> None:
    class Deaf(Guests):
        async def run(self, name: str, choice: TestChoice, limit: float) -> CellResult:
            return await super().run(name, TestChoice(), limit)

    guests = Deaf(tmp_path, {"a": "", "b": "X", "c": ""})
    result = complete(guests)
    assert list(guests.ran) == ["", "rest-1"]
    assert "what it had not come to did not run" in result.detail
    assert result.subtests == {"passed": 1, "failed": 1}


def test_a_host_that_cannot_run_another_guest(tmp_path: Path, complete: Complete) -> None:
    async def refuse(_name: str, _choice: TestChoice, _limit: float) -> CellResult:
        raise HostError("no disk left")

    result = complete(Guests(tmp_path, {"a": "", "b": "X"}), run=refuse)
    assert result.outcome is Outcome.PANICKED
    assert result.detail == "it panicked; what it had not come to did not run: no disk left"
    result = complete(Guests(tmp_path, {"a": "", "b": "F"}), reruns=1, run=refuse)
    assert (result.outcome, result.exit_code, result.further) == (Outcome.FAILED, 1, [])


def test_failed_tests_run_until_they_pass_or_their_number_of_times(
    tmp_path: Path, complete: Complete
) -> None:
    guests = Guests(tmp_path, {"a": "", "b": "F1", "c": "F"})
    result = complete(guests, reruns=2)
    assert guests.ran == {"": ["a", "b", "c"], "rerun-1": ["b", "c"], "rerun-2": ["c"]}
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1)
    assert outcomes(tmp_path) == {"a": "passed", "b": "passed again", "c": "failed"}
    # Only a pass can be one that is not to be relied on.
    assert result.flaky == ""


def test_what_runs_only_when_failed_tests_do_counts(tmp_path: Path, complete: Complete) -> None:
    result = complete(Guests(tmp_path, {"a": "S1", "b": "F", "c": ""}, heeds=False), reruns=1)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1)
    assert outcomes(tmp_path) == {"a": "passed again", "b": "failed"}
    result = complete(Guests(tmp_path, {"a": "S1", "b": "", "c": ""}, heeds=False), reruns=1)
    assert (result.outcome, result.flaky) == (Outcome.PASSED, "1 test failed, then passed")


def test_a_guest_that_the_host_lost_hides_no_other(tmp_path: Path, complete: Complete) -> None:
    result = complete(Guests(tmp_path, {"a": "L", "b": "F", "c": ""}))
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1)
    assert complete(Guests(tmp_path, {"a": "L", "b": "", "c": ""})).outcome is Outcome.LOST


@pytest.mark.parametrize("heeds", [True, False])
def test_a_cell_passes_where_all_failed_tests_do(tmp_path: Path, complete: Complete, heeds: bool) -> None:
    result = complete(Guests(tmp_path, {"a": "", "b": "F1"}, heeds=heeds), reruns=5)
    assert (result.outcome, result.exit_code, result.detail) == (Outcome.PASSED, 0, "")
    assert result.further == ["rerun-1"]
    assert result.subtests == {"passed": 2}


def test_a_complaint_of_the_kernel_is_not_forgotten(tmp_path: Path, complete: Complete) -> None:
    guests = Guests(tmp_path, {"a": "F1"})
    guests.findings = [FindingSummary(kind=FindingKind.WARNING, title="WARNING: x", fingerprint="f")]
    result = complete(guests, reruns=1)
    assert (result.outcome, result.detail) == (Outcome.FAILED, "it failed; WARNING: x")
    assert [(finding.fingerprint, finding.count) for finding in result.findings] == [("f", 2)]


def test_a_failed_test_that_ends_the_guest_when_it_runs_again(tmp_path: Path, complete: Complete) -> None:
    suite = {"a": "F1", "b": "F", "c": "F1"}
    guests = Guests(tmp_path, suite)

    async def run(name: str, choice: TestChoice, limit: float) -> CellResult:
        suite["b"] = "X"
        return await guests.run(name, choice, limit)

    result = complete(guests, reruns=1, run=run)
    assert result.further == ["rerun-1", "rerun-1-rest-1"]
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1)
    assert outcomes(tmp_path) == {"a": "passed again", "b": "failed", "c": "passed again"}


@pytest.mark.parametrize(
    ("again", "names"),
    [
        # A section of xfstests' configuration, a device of blktests.
        ({"x/001 (ext4)": "passed", "x/001 (xfs)": "passed"}, ["x/001 (ext4) again", "x/001 (xfs) again"]),
        # Tests inside of one of kselftest.
        ({"x/001/one": "passed", "x/001/two": "skipped"}, ["x/001/one again"]),
        ({"x/001 (ext4)": "passed", "x/001 (xfs)": "failed"}, ["x/001", "x/001 (xfs)"]),
        ({"x/001/two": "skipped"}, ["x/001"]),
        ({"x/0012 (ext4)": "passed", "x": "passed"}, ["x/001"]),
        ({}, ["x/001"]),
    ],
)
def test_the_parts_of_a_lost_test_stand_for_it(again: Suite, names: list[str], tmp_path: Path) -> None:
    result = anyio.run(Guests(tmp_path, {"a": ""}).run, "", TestChoice(), 1.0)
    tests = [Subtest(name=name, outcome=SubtestOutcome(word)) for name, word in again.items()]
    before = {
        "a": Subtest(name="a", outcome=SubtestOutcome.PASSED),
        "x/001": Subtest(name="x/001", outcome=SubtestOutcome.FAILED),
    }
    found = with_rerun(before, ["x/001"], [Part(result=result, tests=tests)])
    assert [f"{one.name} again" if one.failed_before else one.name for one in found.values()] == ["a", *names]
    # A guest whose time was over may not have come to all parts.
    late = msgspec.structs.replace(result, outcome=Outcome.TIMED_OUT, exit_code=None)
    found = with_rerun(before, ["x/001"], [Part(result=late, tests=tests)])
    assert found["x/001"].outcome is SubtestOutcome.FAILED


@pytest.mark.parametrize(
    ("console", "name"),
    [
        (b"", ""),
        (
            b"[    1.0] ZTS run /usr/share/zfs/zfs-tests/tests/functional/acl/x_pos\r\n",
            "functional/acl/x_pos",
        ),
        (b"[    1.0] ZTS run /a/b\n[    2.0] quizmatrix: begins my test \n[    3.0] BUG: x\n", "my test"),
        (b"[    1.0] quizmatrix: begins a\n[    2.0] quizmatrix: begins b", "b"),
        (b"\x1b[31m[    1.0][ T12] quizmatrix: begins \x1b[2Jx\xff\r\n", "x�"),
    ],
)
def test_which_test_began_last(tmp_path: Path, console: bytes, name: str) -> None:
    path = tmp_path / "console.log"
    assert running.announced(path) == ""
    path.write_bytes(console)
    assert running.announced(path) == name


def test_which_commands_select_tests(tmp_path: Path) -> None:
    assert not selects_tests(tmp_path)
    (tmp_path / "stdout").write_bytes(b"x\n# quizmatrix: selects tests\r\nok 1")
    assert selects_tests(tmp_path)
    (tmp_path / "stdout").write_bytes(b"+ echo '# quizmatrix: selects tests'\n")
    assert not selects_tests(tmp_path)
