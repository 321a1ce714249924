"""The end of an unattended run: what is printed, its exit status, and --on-finish."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from quizmatrix.matrixrun import hook
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.report import baseline, news
from quizmatrix.report.compare import Comparison
from quizmatrix.report.grid import exit_status
from quizmatrix.runs import directory
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.runs.history.record import History
from tests.unit.test_history import result, seed, state

__all__ = ["state"]  # a fixture

pytestmark = pytest.mark.usefixtures("state")

GOOD = [result("6.1-x86_64"), result("6.1-s390x")]
BAD = [result("6.1-x86_64"), result("6.1-s390x", "failed")]
NONE = [result("6.1-x86_64", "unprepared", detail="no network"), result("6.1-s390x", "unprepared")]


def news_of(folder: Path) -> Comparison | None:
    return baseline.since_last(History(print), directory.load(folder), folder)


def told(folder: Path) -> str:
    found = news_of(folder)
    assert found is not None
    return news.words_of_news(found, RunDirectory(folder, directory.load(folder)), colour=False)


def status(folder: Path) -> int:
    cells = directory.load(folder).cells
    return news.status_of_news(exit_status(cells), news_of(folder), cells)


def test_the_first_night_has_nothing_to_be_compared_with() -> None:
    seed(1, BAD, command=["another"])
    first = seed(2, BAD)
    assert news_of(first) is None
    assert status(first) == 1


def test_nothing_new_is_not_said() -> None:
    seed(1, BAD)
    same = seed(2, BAD)
    assert told(same) == ""
    assert status(same) == 0


def test_a_regression_is_said_once() -> None:
    seed(1, GOOD)
    worse = seed(2, BAD)
    text = told(worse)
    assert text.splitlines()[2:] == ["regressed", "  6.1-s390x  passed -> failed (1)", "", f"logs: {worse}"]
    assert status(worse) == 1
    assert told(seed(3, BAD)) == ""
    fixed = seed(4, GOOD)
    assert "fixed\n  6.1-s390x  failed (1) -> passed" in told(fixed)
    assert status(fixed) == 0


def test_what_fails_in_another_way_is_said() -> None:
    seed(1, BAD)
    other = seed(2, [GOOD[0], result("6.1-s390x", "panicked")])
    assert "still failing\n  6.1-s390x  failed (1) -> panicked" in told(other)
    assert status(other) == 0


@pytest.mark.parametrize("outcome", ["cancelled", "unprepared", "skipped"])
def test_a_night_that_was_cut_short_hides_nothing(outcome: str) -> None:
    seed(1, GOOD)
    between = seed(2, [result("6.1-x86_64"), result("6.1-s390x", outcome)])
    assert f"not tested\n  6.1-s390x  passed -> {outcome}" in told(between)
    assert told(seed(3, [result("6.1-x86_64"), result("6.1-s390x", outcome)])) == ""
    worse = seed(4, BAD)
    assert "regressed\n  6.1-s390x" in told(worse)
    assert status(worse) == 1


def test_nothing_tested_is_never_green_and_always_said() -> None:
    seed(1, BAD)
    for number in (2, 3):
        night = seed(number, NONE)
        assert "no network" in told(night) or "not tested" in told(night)
        assert status(night) == 125
    assert "no cell could be tested\n  no network" in told(seed(4, NONE))


def test_what_is_forgiven_does_not_hide_what_was_not_tested() -> None:
    seed(1, BAD)
    night = seed(2, [result("6.1-x86_64", "unprepared"), BAD[1], result("6.12-x86_64")])
    assert exit_status(directory.load(night).cells) == 1
    assert status(night) == 125


def test_what_fails_and_is_new_is_not_forgiven() -> None:
    seed(1, GOOD)
    night = seed(2, [*GOOD, result("6.12-x86_64", "failed")])
    assert status(night) == 1
    tests = {"6.1-s390x": {"a": "failed"}}
    seed(3, BAD, tests)
    assert status(seed(4, BAD, tests)) == 0
    assert status(seed(5, BAD, {"6.1-s390x": {"a": "failed", "b": "failed"}})) == 1


def test_flaky_is_said_every_time_and_forgiven() -> None:
    flaky = [GOOD[0], result("6.1-s390x", flaky="failed in the run before, from the same inputs")]
    seed(1, GOOD)
    for number in (2, 3):
        night = seed(number, flaky)
        assert "flaky\n  6.1-s390x" in told(night)
        assert status(night) == 0


def test_gone_is_what_the_same_command_line_had() -> None:
    seed(1, [*GOOD, result("6.12-s390x")])
    assert told(seed(2, GOOD, arguments=["quick", "--only", "6.1-*"])) == ""
    seed(3, [*GOOD, result("6.12-s390x")])
    assert "gone\n  6.12-s390x" in told(seed(4, GOOD))


def test_a_run_whose_directory_is_gone_counts(state: Path) -> None:
    first = seed(1, BAD)
    History(print).catch_up()
    first.rename(state / "elsewhere")
    assert told(seed(2, BAD)) == ""


def ended(cells: list[CellResult]) -> RunResults:
    return RunResults(
        run="r", command=["true"], started="2026-01-01T00:00:00+00:00", cells=cells, exit_code=1
    )


def test_whoever_is_to_hear_gets_the_results(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "heard it"
    script = f"cat > '{there}'; env | grep ^QUIZMATRIX_R; echo $QUIZMATRIX_EXIT_STATUS $MY_OWN; exit 3"
    monkeypatch.setenv("MY_OWN", "mine")
    hook.run_on_finish(script, ended(BAD), tmp_path)
    assert json.loads(there.read_bytes()) == json.loads(msgspec.json.encode(ended(BAD)))
    out, err = capfd.readouterr()
    assert out == ""
    assert f"QUIZMATRIX_RUN_DIR={tmp_path}\n" in err
    assert "QUIZMATRIX_RUN=r\n" in err
    assert "\n1 mine\n" in err
    assert "--on-finish ended with 3: cat" in err


@pytest.mark.parametrize("script", ["sleep 1000", "trap '' TERM; sleep 1000 & wait"])
def test_whoever_does_not_end_is_killed(
    script: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    hook.run_on_finish(script, ended(GOOD), tmp_path, limit=0.3)
    assert time.monotonic() - began < 5
    assert "--on-finish had not ended after 0.30s and was killed" in capfd.readouterr().err


def test_one_that_reads_nothing_is_no_fault(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hook.run_on_finish("true", ended(GOOD * 5000), tmp_path)
    assert capfd.readouterr().err == ""
