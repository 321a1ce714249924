"""The history: what is recorded of runs, what is read from it, and what happens if it is damaged."""

import json
import multiprocessing
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quizmatrix.cli import run_command
from quizmatrix.cli.options import run_options, run_request, typed_options
from quizmatrix.cli.parser import parse
from quizmatrix.cli.run import read_arguments
from quizmatrix.core.errors import HistoryError, UsageError
from quizmatrix.core.folders import disk_usage
from quizmatrix.core.json import to_json
from quizmatrix.model.options import RunOptions, RunRequest
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults, Timings
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.model.task import in_each
from quizmatrix.prepare.selection import selected_cells, selected_slices, tasks_of
from quizmatrix.report.formats.source import load as load_source
from quizmatrix.report.progress import tell
from quizmatrix.report.runhistory import RunHistory, sentence
from quizmatrix.runs import directory, rerun, resume, retention, slices
from quizmatrix.runs.history import database, kept
from quizmatrix.runs.history.kept import RunKind, why_flaky
from quizmatrix.runs.history.record import MOST_TESTS, History, days_ago
from quizmatrix.schedule.plan import longest_first
from quizmatrix.subtests.reading import FILE

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory, a cache and a current folder for one test."""
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "state"))
    # Without this, `clean` would remove the user's cache.
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "state"


def result(cell: str, outcome: str = "passed", **more: Any) -> CellResult:
    kernel, arch = cell.partition("@")[0].rsplit("-", 1)
    fields: dict[str, Any] = {
        "release": f"{kernel}.1",
        "variant": None,
        "accelerator": None,
        "exit_code": {"passed": 0, "failed": 1}.get(outcome),
        "timings": Timings(prepare=1.0, command=1.25, total=3.0),
        "inputs": "",
    }
    return CellResult(cell=cell, kernel=kernel, arch=arch, outcome=Outcome(outcome), **(fields | more))


def seed(
    number: int,
    cells: list[CellResult],
    tests: dict[str, dict[str, str]] | None = None,
    **more: Any,
) -> Path:
    """A run directory. number: the day of the run. tests: outcomes by cell and name."""
    began = START + timedelta(days=number)
    run = f"{began:%Y%m%d-%H%M%S}-{number:04x}"
    folder = directory.runs_dir() / run
    folder.mkdir(parents=True)
    fields: dict[str, Any] = {
        "command": ["./t"],
        "matrix": "quick",
        "folder": str(Path.cwd()),
        "arguments": ["quick"],
        "started": began.isoformat(timespec="milliseconds"),
        "finished": (began + timedelta(minutes=1)).isoformat(timespec="milliseconds"),
        "exit_code": 0,
    }
    told = []
    for cell in cells:
        outcomes = (tests or {}).get(cell.cell, {})
        (folder / cell.folder).mkdir()
        if outcomes:
            listed = [
                Subtest(
                    name=name,
                    outcome=SubtestOutcome(outcome.removesuffix("!")),
                    failed_before=outcome.endswith("!"),
                )
                for name, outcome in outcomes.items()
            ]
            (folder / cell.folder / FILE).write_bytes(to_json(listed))
        told.append(msgspec.structs.replace(cell, subtests={"passed": len(outcomes)} if outcomes else {}))
    results = RunResults(run=run, cells=told, **(fields | more))
    (folder / directory.RESULTS).write_bytes(to_json(results))
    latest = directory.runs_dir() / directory.LATEST
    latest.unlink(missing_ok=True)
    latest.symlink_to(run)
    return folder


def caught_up() -> History:
    said: list[str] = []
    history = History(said.append)
    history.catch_up()
    assert said == []
    return history


def test_a_run_is_kept_and_found_again() -> None:
    place = seed(1, [result("6.1-s390x", "failed")], {"6.1-s390x": {"a": "passed", "b": "failed"}})
    found = caught_up().find(place.name[:8])
    assert found is not None
    assert found.results == directory.load(place)
    assert found.place == place
    assert list(found.tests["6.1-s390x"]) == ["b"]
    with sqlite3.connect(database.path()) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_is_no_text_is_kept_all_the_same(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["a\udcff"], matrix="m\udcff", current="\udcfe")
    run_directory.finish([result("6.1-s390x", "failed", detail="\udcff")], 1)
    history = caught_up()
    history.record(run_directory.folder, run_directory.results)
    kind = RunKind(command=["a\udcff"], matrix="m\udcff", folder="\udcfe")
    assert list(history.latest(kind)) == ["6.1-s390x"]


def record_many(first: int) -> None:
    """Runs in a separate process."""
    history = History(print)
    for number in range(first, first + 10):
        began = (START + timedelta(minutes=number)).isoformat()
        results = RunResults(run=f"r{number}", command=["x"], started=began, cells=[result("6.1-s390x")])
        history.record(Path("/nowhere"), results)


# Seconds for three interpreters on a busy host.
@pytest.mark.timeout(120)
def test_two_runs_at_once() -> None:
    spawner = multiprocessing.get_context("spawn")
    writers = [spawner.Process(target=record_many, args=(first,)) for first in (0, 100, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(caught_up().runs()) == 30


@pytest.mark.timeout(120)
def test_a_hundred_thousand_tests() -> None:
    names = {f"tests/group/test_{number}": "failed" for number in range(100_000)}
    place = seed(1, [result("6.1-s390x", "failed")], {"6.1-s390x": names})
    history = caught_up()
    found = history.find(place.name)
    assert found is not None
    assert len(found.tests["6.1-s390x"]) == 100_000
    assert database.path().stat().st_size < 20_000_000


def test_of_more_tests_the_history_keeps_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Tests that the history does not know are not reported as changes."""
    names = {f"t{number}": "failed" for number in range(MOST_TESTS + 1)}
    failed = {"failed": len(names)}
    places = [seed(day, [result("6.1-s390x", "failed")], {"6.1-s390x": names}) for day in (1, 2)]
    said: list[str] = []
    history = History(said.append)
    for place in places:
        results = directory.load(place)
        cells = [msgspec.structs.replace(cell, subtests=failed) for cell in results.cells]
        results = msgspec.structs.replace(results, cells=cells)
        (place / directory.RESULTS).write_bytes(to_json(results))
        history.record(place, results)
    assert (
        said
        == [
            "6.1-s390x: of its 100,001 tests that failed the history keeps 100,000: "
            "the others are known while the run directory is there"
        ]
        * 2
    )
    places[0].rename(places[0].with_name(".away"))
    assert run_command(["runs", "compare"]) == 0
    assert "regressed" not in capsys.readouterr().out


def test_a_newer_history_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    seed(1, [result("6.1-s390x")])
    caught_up()
    connection = sqlite3.connect(database.path())
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = database.path().read_bytes()
    with pytest.raises(HistoryError, match="newer quizmatrix"):
        History(print).runs()
    past = RunHistory()
    assert past.mark_flaky([result("6.1-s390x")]) == [result("6.1-s390x")]
    assert past.error is not None
    assert "is of a newer quizmatrix, and is left alone" in sentence(past.error)
    # Commands that need no history work, and print a sentence.
    assert run_command(["runs", "list"]) == 0
    said = capsys.readouterr()
    assert "20261102" in said.out
    assert said.err.count("\n") == 1
    assert "is left alone" in said.err
    assert database.path().read_bytes() == before


@pytest.mark.parametrize(
    "damage", [b"this is no database, and long enough to be one" * 100, b"SQLite format 3\0"]
)
def test_a_damaged_history_is_moved_aside_and_made_again(damage: bytes, state: Path) -> None:
    seed(1, [result("6.1-s390x")])
    seed(2, [result("6.1-s390x", "failed")])
    caught_up()
    database.path().write_bytes(damage)
    said: list[str] = []
    assert len(History(said.append).runs()) == 2
    (sentence,) = said
    (aside,) = state.glob("history.sqlite.corrupt-*")
    assert aside.read_bytes() == damage
    assert str(aside) in sentence
    assert "made again from 2 run directories" in sentence
    assert len(caught_up().runs()) == 2


def test_pages_that_were_overwritten(state: Path) -> None:
    for number in range(40):
        seed(number, [result(f"6.{minor}-s390x") for minor in range(10)])
    caught_up()
    data = bytearray(database.path().read_bytes())
    data[4096 : len(data) - 4096] = b"\xa5" * (len(data) - 8192)
    database.path().write_bytes(data)
    said: list[str] = []
    assert len(History(said.append).points("6.1-s390x", days_ago(3650))) == 40
    assert len(said) == 1
    assert len(list(state.glob("history.sqlite.corrupt-*"))) == 1


def test_tables_that_are_gone(state: Path) -> None:
    seed(1, [result("6.1-s390x")])
    caught_up()
    connection = sqlite3.connect(database.path())
    connection.execute("DROP TABLE findings")
    connection.close()
    said: list[str] = []
    assert len(History(said.append).runs()) == 1
    assert len(said) == 1


def test_a_history_that_cannot_be_written_costs_the_record_alone(state: Path, tmp_path: Path) -> None:
    state.mkdir()
    database.path().mkdir()
    past = RunHistory()
    run_directory = directory.create(tmp_path / "run", ["x"])
    run_directory.finish([result("6.1-s390x")], 0)
    past.record(run_directory)
    assert past.error is not None
    assert "cannot use the history" in str(past.error)


def test_a_locked_history_is_waited_for() -> None:
    seed(1, [result("6.1-s390x")])
    history = caught_up()
    connection = sqlite3.connect(database.path(), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    # Readers do not wait for a writer.
    assert len(history.runs()) == 1
    connection.execute("COMMIT")
    connection.close()


def test_damaged_and_unfinished_run_directories() -> None:
    seed(1, [result("6.1-s390x")])
    half = seed(2, [result("6.1-s390x")], finished=None, exit_code=None)
    (seed(3, []) / directory.RESULTS).write_text('{"run": "x", "cells": [{"ce')
    (seed(4, []) / directory.RESULTS).unlink()
    # A run that was killed is recorded; one that is going on is not.
    going = directory.create(None, ["x"])
    assert directory.is_going_on(going.folder)
    assert not directory.is_going_on(half)
    assert sorted(one.run for one in caught_up().runs()) == ["20261102-120000-0001", half.name]
    going.finish([], 0)
    assert not directory.is_going_on(going.folder)


def test_flaky_is_what_differs_from_the_same_inputs() -> None:
    assert why_flaky(Outcome.PASSED, [Outcome.PASSED, Outcome.FAILED, Outcome.TIMED_OUT]) == (
        "failed or timed-out in 2 of the 3 runs before, from the same inputs"
    )
    assert why_flaky(Outcome.FAILED, [Outcome.PASSED]) == "passed in the run before, from the same inputs"
    assert why_flaky(Outcome.FAILED, [Outcome.TIMED_OUT]) == ""
    assert why_flaky(Outcome.PASSED, [Outcome.UNPREPARED, Outcome.CANCELLED, Outcome.LOST]) == ""
    assert why_flaky(Outcome.CANCELLED, [Outcome.PASSED]) == ""


def test_a_pass_after_a_failure_from_the_same_is_not_silent() -> None:
    seed(1, [result("6.1-s390x", "failed", inputs="same"), result("6.2-s390x", "failed", inputs="old")])
    results = [result("6.1-s390x", inputs="same"), result("6.2-s390x", inputs="new"), result("6.3-s390x")]
    one, two, three = caught_up().mark_flaky(results)
    assert one.flaky == "failed in the run before, from the same inputs"
    assert (two.flaky, three.flaky) == ("", "")


def test_seconds_that_cells_take() -> None:
    for number, seconds in enumerate((2.0, 9.0, 4.0)):
        seed(number, [result("6.1-s390x", timings=Timings(prepare=100.0, total=100 + seconds))])
    seed(4, [result("6.1-s390x", "unprepared", timings=Timings(total=500.0))])
    seed(5, [result("6.1-s390x", timings=Timings(total=500.0))], command=["other"])
    known = caught_up().expected_seconds(["6.1-s390x", "6.2-s390x"], ["./t"])
    assert known == {"6.1-s390x": 4.0}
    tasks = in_each(cells_of("quick", "--only", "6.1-s390x,6.12-s390x,6.1-x86_64"), ["./t"])
    order = longest_first(tasks, {"6.12-s390x": 1.0, "6.1-s390x": 5.0})
    assert [task.id for task in order] == ["6.1-x86_64", "6.1-s390x", "6.12-s390x"]
    order = longest_first(tasks, {"6.12-s390x": 1.0, "6.1-s390x": 5.0}, frozenset({"6.12-s390x"}))
    assert [task.id for task in order] == ["6.12-s390x", "6.1-x86_64", "6.1-s390x"]


def cells_of(*argv: str) -> list[Any]:
    return selected_cells(run_options(parse(["run", *argv, "--", "./t"])))


def asked(*argv: str) -> RunRequest:
    return run_request(parse(["run", *argv]))


def with_last_command(*argv: str) -> RunRequest:
    return rerun.with_last_command(asked("--last-failed", *argv), History(tell), read_arguments)


def resumed(place: Path, *argv: str) -> RunRequest:
    return resume.with_its_command(asked("--resume", str(place), *argv), read_arguments)


def chosen(*argv: str) -> rerun.Choice:
    request = asked(*argv)
    tasks = tasks_of(selected_slices(request.options), request.command)
    return rerun.choose(request, tasks, lambda: History(tell), tell)


def test_only_what_failed_last_is_run_and_the_rest_is_taken_over() -> None:
    failed = [result("6.1-s390x", "failed"), result("6.12-s390x", "cancelled")]
    seed(1, [result("6.1-x86_64", "failed"), result("6.12-x86_64"), *failed])
    # The last result of each cell counts, even if a run did not have all cells.
    seed(2, [result("6.1-x86_64")])
    seed(3, [result("6.12-x86_64", "failed")], command=["other"])
    found = chosen("quick", "--last-failed", "--", "./t")
    assert [task.id for task in found.tasks] == ["6.1-s390x", "6.12-s390x"]
    assert [(one.cell, one.earlier) for _, one in found.earlier] == [
        ("6.1-x86_64", "20261103-120000-0002"),
        ("6.12-x86_64", "20261102-120000-0001"),
    ]
    # A cell that was never run has no result, and the run is complete without it.
    assert found.order == ["6.1-x86_64", "6.1-s390x", "6.12-x86_64", "6.12-s390x"]
    whole = found.merged([result("6.1-s390x")])
    assert [one.cell for one in whole] == ["6.1-x86_64", "6.1-s390x", "6.12-x86_64"]
    found = chosen("quick", "--failed-first", "--", "./t")
    assert (len(found.tasks), set(found.first)) == (6, {"6.1-s390x", "6.12-s390x"})


HANDOFF = """
kernels = ["6.1"]
arches = ["x86_64", "s390x"]
[handoff]
write = "w"
read = "r"
back = true
"""


def test_a_failed_step_is_run_with_what_made_its_disks(capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.toml").write_text(HANDOFF)
    ids = [task.id for task in chosen("m.toml", "--last-failed").tasks]
    assert len(ids) == 10
    assert "there is no earlier run of these cells: all are run" in capsys.readouterr().err
    bad = "6.1-x86_64..6.1-s390x"
    outcomes = {bad: "failed", f"{bad}..6.1-x86_64": "skipped"}
    done = [
        msgspec.structs.replace(result("6.1-s390x", outcomes.get(one, "passed")), cell=one) for one in ids
    ]
    more: dict[str, Any] = {"command": [], "matrix": str(Path("m.toml").absolute())}
    more["arguments"] = ["m.toml", "--env", "A=1"]
    seed(1, done, **more)
    found = chosen("m.toml", "--last-failed")
    assert [task.id for task in found.tasks] == ["6.1-x86_64", bad, f"{bad}..6.1-x86_64"]
    assert [one.cell for one in found.merged([])] == [
        one for one in ids if one not in (*outcomes, "6.1-x86_64")
    ]
    # Without MATRIX, the last run in this folder is repeated, with its options.
    request = with_last_command()
    options = request.options
    assert (request.command, options.selection.matrix, options.guest.env) == (None, "m.toml", ["A=1"])
    assert run_command(["run", "--last-failed", "--dry-run"]) == 0
    assert "3 VMs: 1 write, 1 read, 1 back" in capsys.readouterr().out
    seed(2, done, **more)
    assert run_command(["runs", "compare"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(f": {Path('m.toml').absolute()}")


def test_all_are_run_where_none_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(chosen("quick", "--last-failed", "--", "./t").tasks) == 6
    assert "there is no earlier run of these cells: all are run" in capsys.readouterr().err
    seed(1, [result("6.1-s390x", "failed", expected=Outcome.FAILED)])
    assert len(chosen("quick", "--last-failed", "--", "./t").tasks) == 6
    assert "none of these cells failed last: all are run" in capsys.readouterr().err


def test_without_a_command_the_last_run_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "--last-failed"]) == 125
    assert "there is no earlier run whose command could be run again" in capsys.readouterr().err
    seed(1, [result("6.1-s390x", "failed")], arguments=["quick", "--env", "A=1", "-j", "9"])
    seed(2, [result("6.1-s390x", "failed")], folder="/elsewhere", command=["other"])
    request = with_last_command("--memory", "2G", "-x")
    options = request.options
    assert (request.command, options.selection.matrix, options.guest.env) == (["./t"], "quick", ["A=1"])
    assert (options.limits.memory, options.conduct.jobs) == ("2G", None)
    assert (options.conduct.fail_fast, options.once.last_failed) == (True, True)
    # The next --last-failed repeats the same run, without what is typed now.
    assert request.arguments == ["quick", "--env", "A=1", "-j", "9"]
    assert request.repeated == run_options(parse(["run", *request.arguments]))
    assert run_command(["run", "--last-failed", "--dry-run"]) == 0
    assert "6.1-s390x" in capsys.readouterr().out


# Options that have a default, each with a value other than that.
DEFAULTS = {
    "--accel": "tcg",
    "--on-timeout": "dump",
    "--retries": "3",
    "--rerun-failed": "2",
    "--shard": "2",
    "--fail-on": "regression",
}


def value_of(options: RunOptions, option: str) -> Any:
    return dict(options.values())[option.removeprefix("--").replace("-", "_")]


def test_which_options_have_a_default() -> None:
    options = parse(["run"]).parser._actions
    # argparse has none, so that what is there was typed.
    assert {one.option_strings[-1] for one in options if one.option_strings and one.default} == {"--help"}
    known = {name for name, value in RunOptions().values() if value not in (None, []) and value is not False}
    assert {f"--{name.replace('_', '-')}" for name in known} == set(DEFAULTS)


def kept_as(words: list[str], how: str) -> dict[str, Any]:
    """A run's record with these arguments, by this quizmatrix, or by one that had no `options`."""
    options = run_options(parse(["run", *words])) if how == "options" else None
    return {"arguments": words, "options": options}


HOW = pytest.mark.parametrize("how", ["arguments", "options"])


@HOW
@pytest.mark.parametrize("option", DEFAULTS)
def test_what_is_typed_wins_though_it_is_the_default(option: str, how: str) -> None:
    place = seed(1, [result("6.1-s390x", "failed")], **kept_as(["quick", option, DEFAULTS[option]], how))
    default = value_of(RunOptions(), option)
    for words in ([option, str(default)], [f"{option}={default}"]):
        found = (with_last_command(*words), resumed(place, *words))
        assert [value_of(one.options, option) for one in found] == [default, default]
    # Options that are not typed are the earlier run's: --resume takes over all of them.
    assert str(value_of(resumed(place).options, option)) == DEFAULTS[option]
    assert with_last_command().options.guest.accel == ("tcg" if option == "--accel" else "auto")


@HOW
@pytest.mark.parametrize(
    ("earlier", "typed_now", "stdin"),
    [
        (["--stdin", "/etc/passwd"], ["--no-stdin"], "/dev/null"),
        (["--no-stdin"], ["--stdin", "-"], "-"),
        (["--no-stdin"], [], "/dev/null"),
        (["--stdin", "/etc/passwd"], ["--memory", "2G"], "/etc/passwd"),
    ],
)
def test_what_is_typed_wins_over_what_excludes_it(
    earlier: list[str], typed_now: list[str], stdin: str, how: str
) -> None:
    place = seed(1, [result("6.1-s390x", "failed")], **kept_as(["quick", *earlier], how))
    for request in (with_last_command(*typed_now), resumed(place, *typed_now)):
        assert request.options.guest.stdin == stdin


def test_the_options_are_kept_though_the_words_are_of_another_version() -> None:
    """`run` reads a run's options, and its arguments only where it has no options."""
    options = run_options(parse(["run", "quick", "--env", "A=1"]))
    place = seed(1, [result("6.1-s390x", "failed")], arguments=["--of-another-version"], options=options)
    for request in (with_last_command(), resumed(place)):
        assert (request.options.selection.matrix, request.options.guest.env) == ("quick", ["A=1"])
    (place / directory.RESULTS).unlink()
    with pytest.raises(UsageError, match="--of-another-version"):
        with_last_command()


def test_an_option_is_typed_though_it_is_the_default() -> None:
    args = parse(["run", "quick", "--accel", "auto", "-p", "net", "-x", "--", "true", "--retries", "0"])
    assert typed_options(args) == {"matrix", "accel", "profiles", "fail_fast"}
    assert typed_options(parse(["run"])) == set()
    assert typed_options(parse(["runs", "show", "latest"])) == set()
    assert run_request(args).typed == typed_options(args)


def test_a_cell_that_was_not_run_again_is_found_in_the_new_run(tmp_path: Path) -> None:
    place = seed(1, [result("6.1-s390x")], {"6.1-s390x": {"a": "passed"}})
    run_directory = directory.create(tmp_path / "run", ["./t"])
    one = result("6.1-s390x", earlier="x", subtests={"passed": 1})
    run_directory.refer_to(one, place / "6.1-s390x")
    # A killed run has the options, too, and so do its events.
    assert directory.load(tmp_path / "run").cells == [one]
    assert load_source(tmp_path / "run").cells == [one]
    run_directory.finish([one], 0)
    assert list(kept.load(tmp_path / "run").tests["6.1-s390x"]) == ["a"]


def test_prune(capsys: pytest.CaptureFixture[str]) -> None:
    places = [seed(number, [result("6.1-s390x")]) for number in range(5)]
    other = directory.runs_dir() / "mine"
    other.mkdir()
    assert run_command(["runs", "prune", "--keep", "2", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 runs, 0.0 MB would be freed")
    going = directory.create(None, ["x"])
    assert run_command(["runs", "prune", "--keep", "3"]) == 0
    assert [place.exists() for place in places] == [False, False, False, True, True]
    assert going.folder.exists()
    assert other.exists()
    assert run_command(["runs", "prune", "--older-than", "100000d"]) == 125
    # The history keeps runs whose directories were removed.
    assert len(caught_up().runs()) == 5


def test_prune_keeps_what_is_needed() -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    places = [seed(number, [result("6.1-s390x")]) for number in range(4)]
    assert retention.old_runs(1, old) == []
    assert [one.folder for one in retention.old_runs(1, START + timedelta(days=1.5))] == places[1::-1]
    seed(5, [result("6.1-s390x", earlier=places[0].name)])
    assert places[0] not in [one.folder for one in retention.old_runs(1, None)]
    (places[2] / directory.RESULTS).write_text("{")
    assert places[2] in [one.folder for one in retention.old_runs(1, None)]


def test_clean_knows_the_history(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed(1, [result("6.1-s390x")])
    caught_up()
    (state / "history.sqlite.corrupt-1").touch()
    assert run_command(["clean", "--runs", "--dry-run"]) == 0
    assert database.path().exists()
    assert run_command(["clean", "--runs"]) == 0
    assert [path.name for path in state.iterdir()] == []


def test_a_file_of_several_names_takes_its_space_once(tmp_path: Path) -> None:
    for folder in ("one", "one/deeper", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one/file").write_bytes(bytes(1 << 20))
    os.link(tmp_path / "one/file", tmp_path / "one/deeper/file")
    os.link(tmp_path / "one/file", tmp_path / "two/file")
    (tmp_path / "two/other").write_bytes(bytes(1 << 19))
    links: set[tuple[int, int]] = set()
    sizes = [disk_usage(tmp_path / folder, links) for folder in ("one", "two")]
    assert sizes[0] >= 1 << 20 > sizes[1] >= 1 << 19
    assert sum(sizes) < 2 << 20


def test_a_cell_over_time(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    for days, outcome, seconds in (
        (50, "passed", 1.0),
        (3, "passed", 0.5),
        (2, "failed", 2.0),
        (1, "passed", 1.0),
    ):
        began = (now - timedelta(days=days)).isoformat(timespec="milliseconds")
        seed(days, [result("6.1-s390x", outcome, timings=Timings(command=seconds))], started=began)
    seed(60, [result("6.1-s390x")], started=(now - timedelta(days=4)).isoformat(), command=["other"])
    assert run_command(["runs", "show", "6.1-s390x", "--over", "30d"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "6.1-s390x, the last 30d: ./t",
        "3 runs: 2 passed, 1 failed; 0.50s to 2.00s, median 1.00s",
    ]
    assert [line.split()[3:] for line in lines[2:5]] == [
        ["passed", "0.50s"],
        ["failed", "2.00s"],
        ["passed", "1.00s"],
    ]
    assert lines[5:] == ["1 more of other commands"]
    assert run_command(["runs", "show", "6.1-s390x", "--over", "30d", "--html", "-"]) == 125
    assert "--html is a report of one run" in capsys.readouterr().err
    assert run_command(["runs", "show", "6.1-s930x", "--over", "30d"]) == 125
    assert "Did you mean `6.1-s390x`?" in capsys.readouterr().err


def test_results_json_of_before_is_still_read() -> None:
    place = seed(1, [result("6.1-s390x")])
    data = json.loads((place / directory.RESULTS).read_text())
    for key in ("matrix", "folder", "arguments"):
        del data[key]
    for key in ("inputs", "flaky", "earlier"):
        del data["cells"][0][key]
    (place / directory.RESULTS).write_text(json.dumps(data))
    assert caught_up().runs()[0].matrix == ""


def seed_times(number: int, seconds: dict[str, dict[str, float | None]], **more: Any) -> Path:
    """A run whose tests took so long, by cell and name."""
    cells = [result(cell, shard=cell.partition("@")[2] or None) for cell in seconds]
    place = seed(
        number, cells, {cell: dict.fromkeys(took, "passed") for cell, took in seconds.items()}, **more
    )
    for cell, took in seconds.items():
        listed = [
            Subtest(name=name, outcome=SubtestOutcome.PASSED, seconds=time) for name, time in took.items()
        ]
        (place / cell / FILE).write_bytes(to_json(listed))
    return place


def test_the_last_time_of_each_test_is_kept_by_program_and_architecture() -> None:
    seed_times(1, {"6.1-s390x": {"a": 5.0, "b": 6.0}, "6.1-x86_64": {"a": 1.0}}, command=["bin/t", "-x"])
    seed_times(3, {"6.12-s390x@1of2": {"a": 8.0, "c": None}}, command=["t -y | cat"])
    history = caught_up()
    # An older run that is recorded later changes no time.
    seed_times(2, {"6.1-s390x": {"a": 7.0, "d": 2.0}}, command=["/usr/bin/t"])
    history.catch_up()
    assert history.test_seconds(["t"], "s390x") == {"a": 8.0, "b": 6.0, "d": 2.0}
    assert history.test_seconds(["t"], "x86_64") == {"a": 1.0}
    assert history.test_seconds(["u"], "s390x") == {}
    history.forget(START + timedelta(days=2))
    assert history.test_seconds(["t"], "s390x") == {"a": 8.0, "d": 2.0}
    with sqlite3.connect(database.path()) as connection:
        assert {name for (name,) in connection.execute("SELECT name FROM names")} == {"a", "d"}


def test_a_history_of_the_first_version_gets_the_table_of_times() -> None:
    seed(1, [result("6.1-s390x", "failed")], {"6.1-s390x": {"a": "failed"}})
    caught_up()
    with sqlite3.connect(database.path()) as connection:
        connection.execute("DROP TABLE durations")
        connection.execute("PRAGMA user_version = 1")
    seed_times(2, {"6.1-s390x": {"a": 5.0}})
    history = caught_up()
    assert len(history.runs()) == 2
    assert history.test_seconds(["./t"], "s390x") == {"a": 5.0}


def slice_seconds(*words: str) -> slices.TestSeconds:
    request = run_request(parse(["run", "quick", *words, "--", "./t"]))
    tasks = tasks_of(selected_slices(request.options), request.command)
    return slices.seconds_for(request, tasks, History(tell))


def test_slices_are_dealt_by_the_last_times_and_run_again_by_the_same() -> None:
    """A slice that is named is that of the last run that had it, although tests took another time since."""
    places = [seed_times(day, {f"6.1-s390x@{n}of2": {f"t{n}": 10.0 * day} for n in (1, 2)}) for day in (1, 2)]
    caught_up()
    new = {"s390x": {"t1": 20.0, "t2": 20.0}}
    assert slice_seconds("-a", "s390x") == {}  # no slices
    assert slice_seconds("-a", "s390x", "--shard", "2") == new
    assert slice_seconds("--only", "6.1-s390x@2of2") == new  # that run kept none
    for place, kept_times in zip(places, ({"s390x": {"t1": 1.0}}, {"s390x": {"t1": 2.0}}), strict=True):
        slices.keep(place, kept_times)
    assert slice_seconds("--only", "6.1-s390x@2of2") == {"s390x": {"t1": 2.0}}
    assert slice_seconds("-a", "s390x", "--shard", "2", "--last-failed") == {"s390x": {"t1": 2.0}}
    assert slice_seconds("--only", "6.1-s390x@2of3") == new  # never ran
    assert slice_seconds("-a", "s390x", "--shard", "2") == new
    again = ("--only", "6.1-s390x@2of2", "--shard-like", places[0].name)
    assert slice_seconds(*again) == {"s390x": {"t1": 1.0}}
    with pytest.raises(UsageError, match="had no slices"):
        slice_seconds("--only", "6.1-s390x@2of2", "--shard-like", seed(4, [result("6.1-s390x")]).name)
