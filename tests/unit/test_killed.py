"""A run that is killed at any moment: its results can be read, its VMs are gone, and it can be resumed.

The VMs are other programs here, started by the same spawner; tests/vm/test_killed.py has real ones.
"""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import pytest

from quizmatrix.cli import run_command
from quizmatrix.core import process
from quizmatrix.core.errors import UsageError
from quizmatrix.model.cells import expand
from quizmatrix.model.events import CellReached
from quizmatrix.model.matrix import Matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.stage import Stage
from quizmatrix.model.task import Task, in_each
from quizmatrix.run.observer import Observer
from quizmatrix.runs import directory, resume
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.admission import Admission
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from tests.ready import Ready, ended
from tests.unit.test_history import result

TASKS = in_each(expand(Matrix(kernels=["5.10", "6.1", "6.12"], arches=["s390x", "ppc64"]), "test"), ["true"])
IDS = [task.id for task in TASKS]


def play(
    run_directory: RunDirectory, folder: Path, tasks: list[Task], name: str
) -> tuple[list[CellResult], list[str]]:
    """Run tasks, three at a time; each is a program `name` that ends after a moment. Returns their ids."""
    ran: list[str] = []

    async def run_cell(spec: CellSpec, _observer: Observer) -> CellResult:
        ran.append(spec.labels.cell)
        (Path(spec.files.folder) / "stdout").write_text("something")
        machine = await process.start(["sleep", "1000", name])
        try:
            await anyio.sleep(0.003)
        finally:
            process.signal_group(machine, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await machine.wait()
        return ended(spec)

    async def conduct() -> list[CellResult]:
        admission = Admission(cpus=99, memory=1 << 20, places=3)
        ready = Ready(folder / "kernel")
        return await Scheduler(
            Plan(tasks=tasks), run_directory, ready, lambda _event: None, admission, run_cell
        ).run()

    return anyio.run(conduct), ran


def begin(folder: Path, name: str, ready: Connection) -> None:
    """The process that is killed: a whole run."""
    ready.send(os.getpid())
    run_directory = directory.create(
        folder / "run", ["true"], tasks=IDS, matrix="m", current="/", arguments=["m"]
    )
    results, _ = play(run_directory, folder, TASKS, name)
    run_directory.finish(results, 0)


def machines(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name.encode() in path.read_bytes().split(b"\0") and b"sleep" in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def are_gone_within_a_second(name: str) -> bool:
    until = time.monotonic() + 1
    while found := machines(name):
        if time.monotonic() > until:
            return not found
        time.sleep(0.01)
    return True


@pytest.mark.timeout(300)
def test_killed_at_two_hundred_instants(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    instants = random.SystemRandom()
    left: list[int] = []
    length = 0.12
    for number in range(200):
        folder = tmp_path / str(number)
        (folder / "kernel").mkdir(parents=True)
        name = f"{os.getpid()}.{number}"
        ours, theirs = context.Pipe()
        runner = context.Process(target=begin, args=(folder, name, theirs))
        runner.start()
        ours.recv()
        if number % 20 == 0:
            # The time of a run that is not killed; on a busy host it is many times as long.
            began = time.monotonic()
            runner.join()
            length = time.monotonic() - began
        else:
            time.sleep(instants.uniform(0, length))
        runner.kill()
        runner.join()
        assert are_gone_within_a_second(name)
        run = folder / "run"
        if not (run / directory.RESULTS).exists():
            continue  # it was not begun
        found = directory.load(run)
        assert found.command == ["true"]
        assert set(found.totals) <= {"passed"}
        if found.finished is not None:
            with pytest.raises(UsageError, match="nothing is left"):
                resume.choose(str(run), TASKS)
            continue
        left.append(len(IDS) - len(found.cells))
        check_resumed(folder, {cell.cell for cell in found.cells})
    # Some were killed after the first cell had ended, and before the last one had.
    assert len(set(left)) > 2, left


def check_resumed(folder: Path, done: set[str]) -> None:
    run = folder / "run"
    chosen = resume.choose(str(run), TASKS)
    run_directory = resume.open_directory(str(run), chosen)
    results, ran = play(run_directory, folder, chosen.tasks, "resumed")
    run_directory.finish(chosen.merged(results), 0)
    assert set(ran) == set(IDS) - done
    whole = directory.load(run)
    assert [cell.cell for cell in whole.cells] == IDS
    assert whole.totals == {"passed": len(IDS)}
    assert whole.exit_code == 0
    (run / directory.RESULTS).unlink()
    assert directory.load(run) == whole


def test_what_was_stopped_or_skipped_is_run_again(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    run_directory = directory.create(tmp_path / "run", ["true"], tasks=IDS, matrix="m", current="/")
    outcomes = ["failed", "cancelled", "skipped", "lost", "passed", "unprepared"]
    results = [
        store_one(run_directory, result(cell, outcome)) for cell, outcome in zip(IDS, outcomes, strict=True)
    ]
    run_directory.finish(results, 1)
    chosen = resume.choose(str(tmp_path / "run"), TASKS)
    # These have no verdict of their command: stopped, never begun, unprepared.
    without_verdict = [IDS[1], IDS[2], IDS[5]]
    assert [task.id for task in chosen.tasks] == without_verdict
    again = resume.open_directory(str(tmp_path / "run"), chosen)
    assert directory.load(tmp_path / "run").finished is None
    assert directory.is_going_on(tmp_path / "run")
    with pytest.raises(UsageError, match="still going on"):
        resume.open_directory(str(tmp_path / "run"), chosen)
    results, ran = play(again, tmp_path, chosen.tasks, "resumed")
    again.finish(chosen.merged(results), 1)
    assert sorted(ran) == sorted(without_verdict)
    whole = directory.load(tmp_path / "run")
    assert [str(cell.outcome) for cell in whole.cells] == [
        *("failed", "passed", "passed", "lost", "passed", "passed")
    ]
    # The output of the stopped cell is kept; the skipped one had none.
    assert (tmp_path / f"run/{IDS[1]}.attempt-1/console.log").exists()
    assert not (tmp_path / f"run/{IDS[2]}.attempt-1").exists()


def store_one(run_directory: RunDirectory, one: CellResult) -> CellResult:
    if one.outcome is not Outcome.SKIPPED:
        (run_directory.cell_folder(one.folder) / "console.log").touch()
    run_directory.write_event(CellReached(cell=one.cell, stage=Stage.BOOTING))
    run_directory.write_cell(one.folder, one)
    return one


def test_what_resume_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # and back, behind the run's own change

    def said(*argv: str) -> str:
        assert run_command(["run", *argv]) == 125
        return capsys.readouterr().err

    assert "no run `nope`" in said("--resume", "nope")
    assert "takes no quick and no COMMAND" in said("quick", "--resume", "x", "--", "true")
    assert "not allowed with" in said("--resume", "x", "--last-failed")
    matrix = tmp_path / "m.toml"
    matrix.write_text('kernels = ["6.1"]\narches = ["s390x"]\n')
    facts = {"matrix": str(matrix), "current": str(tmp_path), "arguments": [str(matrix)]}
    run_directory = directory.create(None, ["true"], tasks=["6.1-s390x", "6.1-ppc64"], **facts)  # type: ignore[arg-type]
    run_directory.finish([], 130)
    assert f"its matrix, {matrix}, does not make 6.1-ppc64 any more" in said("--resume", "latest")
    gone = directory.create(None, ["true"], tasks=["6.1-s390x"], **(facts | {"current": "/nowhere"}))  # type: ignore[arg-type]
    gone.finish([], 130)
    assert "cannot go to /nowhere" in said("--resume", gone.results.run)
