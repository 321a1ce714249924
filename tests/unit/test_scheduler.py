"""The scheduler and the run directory, without VMs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from quizmatrix.core.errors import DamagedError, HostError, NotFetchedError, UsageError
from quizmatrix.core.json import to_json
from quizmatrix.model.cells import Cell, expand
from quizmatrix.model.events import CellFinished, CellNote, Event
from quizmatrix.model.matrix import Matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared
from quizmatrix.report.grid import exit_status
from quizmatrix.run.observer import Observer
from quizmatrix.runs import directory
from quizmatrix.schedule.admission import Admission
from quizmatrix.schedule.plan import Plan, check_layers, longest_first
from quizmatrix.schedule.scheduler import Scheduler
from quizmatrix.subtests import reading
from tests.ready import Ready, ended


def cell(number: int) -> Cell:
    return expand(Matrix(kernels=[f"6.{number}"], arches=["s390x"]), "test")[0]


def test_long_cells_start_first() -> None:
    matrix = Matrix(kernels=["6.1", "6.12", "newest"], arches=["x86_64", "s390x"])
    assert [one.id for one in longest_first(in_each(expand(matrix, "test"), ["true"]))] == [
        "newest-s390x",
        "newest-x86_64",
        "6.12-s390x",
        "6.12-x86_64",
        "6.1-s390x",
        "6.1-x86_64",
    ]


class Failing(Preparer):
    """Prepares nothing: every cell fails in its own way."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        super().__init__(Policy(offline=True))
        self._errors = errors

    async def prepare(self, cell: Cell, tell: Callable[[str], None]) -> Prepared:
        tell("trying")
        if cell.id not in self._errors:
            await anyio.sleep_forever()
        raise self._errors[cell.id]


def sweep(
    errors: dict[str, Exception], folder: Path, fail_fast: bool = False
) -> tuple[dict[str, CellResult], list[Event]]:
    seen: list[Event] = []
    cells = [cell(number) for number in (1, 2, 3, 4)]
    run_directory = directory.create(folder, ["true"])
    plan = Plan(tasks=in_each(cells, ["true"]), fail_fast=fail_fast)

    async def play() -> list[CellResult]:
        admission = Admission(cpus=1, memory=1, places=1)
        return await Scheduler(plan, run_directory, Failing(errors), seen.append, admission).run()

    results = anyio.run(play)
    run_directory.finish(results, 125)
    return {result.cell: result for result in results}, seen


def test_every_fault_stays_in_its_cell(tmp_path: Path) -> None:
    errors: dict[str, Exception] = {
        "6.1-s390x": NotFetchedError("no kernel", cause="no network", next_step="Plug it in."),
        "6.2-s390x": HostError("no QEMU"),
        "6.3-s390x": RuntimeError("a bug of ours"),
        "6.4-s390x": OSError(28, "No space left on device", "/x"),
    }
    results, seen = sweep(errors, tmp_path / "run")
    assert [result.outcome for result in results.values()] == ["unprepared", "unprepared", "lost", "lost"]
    assert results["6.1-s390x"].detail == "no kernel: no network. Plug it in."
    assert "a bug of ours" in results["6.3-s390x"].detail
    assert "No space left on device" in results["6.4-s390x"].detail
    assert any(isinstance(event, CellNote) and "Traceback" in event.text for event in seen)
    lines = (tmp_path / "run/events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines].count("finished") == 4
    assert len([event for event in seen if isinstance(event, CellFinished)]) == 4


def test_the_first_failure_cancels_the_rest(tmp_path: Path) -> None:
    results, _ = sweep({"6.2-s390x": HostError("no QEMU")}, tmp_path / "run", fail_fast=True)
    assert [result.outcome for result in results.values()] == [
        "cancelled",
        "unprepared",
        "cancelled",
        "cancelled",
    ]


@pytest.mark.parametrize("second", ["passed", "failed"])
def test_a_task_waits_for_all_that_it_is_after(second: str, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    one, two, last = in_each([cell(number) for number in (1, 2, 3)], ["true"])
    # The longest task would be first, but it has to wait for another one.
    plan = Plan(
        tasks=[replace(last, after=(one.id, two.id)), one, two],
        expected={last.id: 9.0, one.id: 1.0, two.id: 1.0},
    )
    ran: list[str] = []

    async def run_cell(spec: CellSpec, _observer: Observer) -> CellResult:
        await anyio.lowlevel.checkpoint()
        ran.append(spec.labels.cell)
        return ended(spec, Outcome(second) if spec.labels.cell == two.id else Outcome.PASSED)

    async def play() -> list[CellResult]:
        run_directory = directory.create(tmp_path / "run", ["true"])
        admission = Admission(cpus=9, memory=1 << 20, places=9)
        ready = Ready(tmp_path / "kernel")
        return await Scheduler(plan, run_directory, ready, lambda _event: None, admission, run_cell).run()

    result = anyio.run(play)[0]
    assert set(ran[:2]) == {one.id, two.id}
    if second == "passed":
        assert ran[2:] == [last.id]
        assert result.outcome is Outcome.PASSED
    else:
        assert ran[2:] == []
        assert (result.outcome, result.detail) == (Outcome.SKIPPED, "6.2-s390x has not passed: failed")


def test_a_run_has_its_time(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    run_directory = directory.create(tmp_path / "run", ["true"])
    # The last cell has to wait, since there are fewer places than cells.
    plan = Plan(tasks=in_each([cell(number) for number in (1, 2, 3, 4)], ["true"]), max_time=9.3, spent=9)
    closed = []

    async def run_cell(spec: CellSpec, _observer: Observer) -> CellResult:
        try:
            await anyio.sleep(0 if spec.labels.cell == "6.4-s390x" else 1000)
        finally:
            closed.append(spec.labels.cell)
        return ended(spec)

    async def play() -> list[CellResult]:
        admission = Admission(cpus=9, memory=1 << 20, places=2)
        ready = Ready(tmp_path / "kernel")
        return await Scheduler(plan, run_directory, ready, lambda _event: None, admission, run_cell).run()

    with_end = anyio.run(play)
    told = {one.cell: (str(one.outcome), one.detail) for one in with_end}
    assert told["6.4-s390x"] == ("passed", "")
    assert told["6.1-s390x"] == ("skipped", "the run's time of 9.30s was over before it had started")
    for name in ("6.2-s390x", "6.3-s390x"):
        assert told[name][0] == "cancelled"
        assert told[name][1].startswith("the run's time of 9.30s was over: stopped after 0.")
    assert sorted(closed) == ["6.2-s390x", "6.3-s390x", "6.4-s390x"]
    assert exit_status(with_end) == 125


def test_a_stopped_cell_keeps_what_its_first_guest_had_shown(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    run_directory = directory.create(tmp_path / "run", ["true"])
    plan = Plan(tasks=in_each([cell(1)], ["true"]), max_time=9.3, spent=9, reruns=1)
    guests = []

    async def run_cell(spec: CellSpec, _observer: Observer) -> CellResult:
        folder = Path(spec.files.folder)
        guests.append(folder.name)
        if len(guests) > 1:
            await anyio.sleep(1000)
        (folder / reading.FILE).write_bytes(to_json([Subtest(name="a", outcome=SubtestOutcome.FAILED)]))
        failed = ended(spec, Outcome.FAILED)
        return replace(failed, exit_code=3, detail="exit status 3")

    async def play() -> list[CellResult]:
        ready = Ready(tmp_path / "kernel")
        return await Scheduler(plan, run_directory, ready, lambda _event: None, run_cell=run_cell).run()

    (result,) = anyio.run(play)
    assert guests == ["6.1-s390x", "rerun-1"]
    assert result.outcome is Outcome.CANCELLED
    assert result.detail.startswith("the run's time of 9.30s was over: stopped after ")
    assert result.detail.endswith("; its first guest: failed (exit status 3)")


def test_a_layer_has_to_be_a_folder(tmp_path: Path) -> None:
    assert check_layers([tmp_path]) == [tmp_path]
    with pytest.raises(UsageError, match="not a folder"):
        check_layers([tmp_path / "no"])


def result(name: str, outcome: str = "passed") -> CellResult:
    return CellResult(
        cell=name, kernel="6.1", release="6.1.9", arch="s390x", variant=None, accelerator=None,
        outcome=Outcome(outcome),
    )  # fmt: skip


def test_a_run_reads_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path))
    run_directory = directory.create(None, ["a b", "c"])
    assert directory.load(run_directory.folder).finished is None
    run_directory.write_cell("6.1-s390x", result("6.1-s390x"))
    run_directory.write_cell("6.2-s390x", result("6.2-s390x", "lost"))
    half = directory.load(run_directory.folder)
    assert (half.command, half.totals, half.exit_code) == (["a b", "c"], {"passed": 1, "lost": 1}, None)
    run_directory.finish([result("6.2-s390x", "lost"), result("6.1-s390x")], 125)
    done = directory.load(directory.find_run("latest"))
    assert [one.cell for one in done.cells] == ["6.2-s390x", "6.1-s390x"]
    assert done.exit_code == 125
    assert done.finished is not None
    assert directory.find_run(done.run[:-2]) == run_directory.folder


def test_what_is_no_text_is_recorded_all_the_same(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["a\udcff"])
    run_directory.write_event(CellNote(cell="c", text="\udcfe"))
    assert directory.load(tmp_path / "run").command == ["a\ufffd"]
    assert "\ufffd" in (tmp_path / "run/events.jsonl").read_text()


def test_runs_are_listed_the_damaged_ones_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path))
    assert directory.list_runs() == []
    good, bad = directory.create(None, ["x"]), directory.create(None, ["y"])
    (bad.folder / directory.RESULTS).write_text("{")
    (bad.folder / directory.EVENTS).write_text("{")
    listed = dict(directory.list_runs())
    assert listed[good.folder] is not None
    assert listed[bad.folder] is None
    with pytest.raises(DamagedError, match="cannot be read"):
        directory.load(bad.folder)
    with pytest.raises(UsageError, match="several"):
        directory.find_run("2")
    with pytest.raises(UsageError, match="no run"):
        directory.find_run("nope")


def test_an_attempt_keeps_the_logs_before_it(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["x"])
    (run_directory.cell_folder("c") / "stdout").write_text("one")
    (run_directory.cell_folder("c") / "stdout").write_text("two")
    assert list(run_directory.cell_folder("c").iterdir()) == []
    assert (tmp_path / "run/c.attempt-1/stdout").read_text() == "one"
    assert (tmp_path / "run/c.attempt-2/stdout").read_text() == "two"


def test_results_are_never_written_over_others(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    directory.create(tmp_path / "run", ["x"])
    with pytest.raises(UsageError, match="not empty"):
        directory.create(tmp_path / "run", ["x"])
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file"):
        directory.create(tmp_path / "file", ["x"])


def test_a_record_that_cannot_be_written_is_told_at_the_end(tmp_path: Path) -> None:
    run_directory = directory.create(tmp_path / "run", ["x"])
    shutil.rmtree(tmp_path / "run")
    run_directory.write_cell("c", result("c"))
    run_directory.finish([result("c")], 0)
    assert run_directory.error is not None
    assert "cannot write the results" in str(run_directory.error)
