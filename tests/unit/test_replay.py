"""A run's results, read from its events, wherever they were cut off."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from quizmatrix.core.errors import DamagedError, UsageError
from quizmatrix.model.events import CellFinished, CellNote, CellReached
from quizmatrix.model.result import CellResult
from quizmatrix.model.stage import Stage
from quizmatrix.runs import directory
from quizmatrix.runs.directory import EVENTS, RESULTS, RunDirectory
from quizmatrix.runs.replay import replay
from tests.unit.test_report import result

CELLS = ["6.1-x86_64", "6.1-s390x", "6.12-s390x"]


def play(run_directory: RunDirectory, results: list[CellResult]) -> None:
    for one in results:
        run_directory.write_event(CellReached(cell=one.cell, stage=Stage.RUNNING))
        run_directory.write_event(CellNote(cell=one.cell, text="a note"))
        run_directory.write_cell(one.folder, one)
        run_directory.write_event(CellFinished(result=one))


def test_the_events_tell_what_results_json_tells(tmp_path: Path) -> None:
    more: dict[str, Any] = {"matrix": "m\udcff", "current": "/here", "arguments": ["quick", "\udcff"]}
    run_directory = directory.create(
        tmp_path / "run", ["a b", "\udcff"], tasks=[*CELLS, "6.12-x86_64"], **more
    )
    earlier = result("6.12-x86_64", earlier="another")
    run_directory.refer_to(earlier, tmp_path / "other")
    # In the order in which they end.
    results = [result(CELLS[2], "panicked", detail="x\n\x1b"), result(CELLS[0]), result(CELLS[1], "failed")]
    play(run_directory, results)
    # Whether it is flaky is known only after the verdict.
    results[1] = replace(results[1], flaky="failed before")
    run_directory.revise(results[1])
    run_directory.finish([results[1], results[2], results[0], earlier], 1)
    told = replay(tmp_path / "run" / EVENTS)
    assert told.results == directory.load(tmp_path / "run")
    assert [cell.cell for cell in told.results.cells] == [*CELLS, "6.12-x86_64"]
    assert told.results.cells[0].flaky == "failed before"
    assert told.unended == {}
    assert told.notes[0] == "6.12-s390x: a note"
    (tmp_path / "run" / RESULTS).unlink()
    assert directory.load(tmp_path / "run") == told.results


def test_a_run_killed_at_any_byte(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["x"], tasks=CELLS)
    play(run_directory, [result(CELLS[1], "failed"), result(CELLS[0])])
    path = tmp_path / "run" / EVENTS
    data = path.read_bytes()
    first = data.index(b"\n")
    for cut in range(first, len(data), 7):
        path.write_bytes(data[:cut])
        told = replay(path)
        ended = [cell.cell for cell in told.results.cells]
        assert [*ended, *told.unended] == [cell for cell in CELLS if cell in ended] + [
            cell for cell in CELLS if cell not in ended
        ]
        assert told.results.finished is None
    path.write_bytes(data)
    assert replay(path).unended == {CELLS[2]: None}
    assert replay(path).results.totals == {"passed": 1, "failed": 1}


def test_lines_that_are_none_cost_only_themselves(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["x"], tasks=CELLS)
    with (tmp_path / "run" / EVENTS).open("ab") as file:
        file.write(
            b'\xff\xfe\n\n{"event":"from tomorrow"}\n[]\n{"event":"finished","result":{}}\n' + b"\0" * 99
        )
        file.write(b"\n")
    play(run_directory, [result(CELLS[0])])
    told = replay(tmp_path / "run" / EVENTS)
    assert [cell.cell for cell in told.results.cells] == [CELLS[0]]


def test_after_a_disk_was_full_a_line_begins_anew(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["x"], tasks=CELLS)
    events = tmp_path / "run" / EVENTS
    events.rename(tmp_path / "kept")
    events.mkdir()
    play(run_directory, [result(CELLS[0])])
    events.rmdir()
    (tmp_path / "kept").rename(events)
    with events.open("ab") as file:
        file.write(b'{"half')
    play(run_directory, [result(CELLS[1])])
    assert [cell.cell for cell in replay(events).results.cells] == [CELLS[1]]


def test_what_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        replay(tmp_path / "none")
    # As runs of earlier versions have it.
    one = msgspec.json.encode(CellFinished(result=result(CELLS[0])))
    (tmp_path / "some").write_bytes(one + b"\n")
    with pytest.raises(DamagedError, match="does not say"):
        replay(tmp_path / "some")
