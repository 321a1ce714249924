"""An error thrown at every await of a cell's life: each time a typed outcome, and nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import anyio
import pytest

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import HostError
from quizmatrix.model import cells
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.events import CellNote, Event
from quizmatrix.model.matrix import Limits
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.start import StartKind
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.run import template
from quizmatrix.run.cellfolder import host_folder_of
from quizmatrix.run.template import TEMPLATES
from quizmatrix.runs import directory
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from tests.injection import Injector

# Of what the gate has built by then, the guest that boots fastest: it boots a hundred times.
CELL = "debian-source:6.12-ppc64"
pytestmark = pytest.mark.usefixtures("prepared")
# No other test has such a guest.
SHAPE = "quiz.shape=injected"
COMMAND = "echo out; echo err >&2; echo kept >/shared/kept"


def qemus() -> list[str]:
    """The QEMUs that this process has started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if parent == str(os.getpid()) and name.startswith("qemu") and state != "Z":
            found.append(path.parent.name)
    return found


def run_once(folder: Path, injector: Injector) -> tuple[CellResult, list[str]]:
    """The cell's result and messages, with an error somewhere in its life."""
    notes = []

    def see(event: Event) -> None:
        if isinstance(event, CellNote):
            notes.append(event.text)

    # Without the trial boot, which is another cell's life, and takes long where KVM runs no guest.
    tasks = in_each(cells.cells_on_the_spot([CELL], Limits(append=SHAPE)), [COMMAND])
    plan = Plan(tasks=tasks, jobs=1, accelerator=Accelerator.TCG)
    run_directory = directory.create(folder, [COMMAND], tasks=[CELL])
    results: list[CellResult] = []

    async def conduct() -> None:
        conductor = Scheduler(plan, run_directory, Preparer(Policy(offline=True)), see)

        async def whole() -> None:
            results.extend(await conductor.run())

        injector.begin()
        async with task_group() as group:
            group.start_soon(whole)

    anyio.run(conduct)
    run_directory.finish(results, 0)
    return results[0], notes


def check_what_is_left(folder: Path, result: CellResult) -> None:
    assert qemus() == []
    assert directory.load(folder).cells == [result]
    for path in folder.rglob("*"):
        assert path.name == ".quizmatrix" or not path.name.startswith("."), path
    cell = folder / result.folder
    assert not host_folder_of(cell).exists()
    if result.outcome is Outcome.PASSED:
        assert (cell / "stdout").read_bytes() == b"out\n"
        is_unchecked = "artifacts.unchecked" in result.detail
        left = cell / ("artifacts.unchecked" if is_unchecked else "artifacts")
        assert (left / "kept").read_text() == "kept\n"
        assert left.exists()
        assert is_unchecked != (cell / "artifacts").exists()


def check_result(result: CellResult, notes: list[str], where: str) -> None:
    assert not result.detail.startswith("internal error"), (where, result.detail)
    assert not any("Traceback" in note for note in notes), (where, notes)
    # Unprepared, lost, or the verdict: an error after the command's end, or one that only costs a template.
    assert result.outcome in (Outcome.UNPREPARED, Outcome.LOST, Outcome.PASSED), (where, result)
    # asyncio keeps an error that it meets as it opens a child's pipes for itself.
    told = "it took too long" if "_connect_pipes" in where else "injected"
    assert result.outcome is Outcome.PASSED or told in result.detail, (where, result)


def saved_guest(tmp_path: Path) -> Path:
    """A copy of the template of the test's guest, which nobody else uses."""
    # On a busy host a guest's CPUs may not come to rest, and then it is not saved.
    for number in range(5):
        run_once(tmp_path / f"saved-{number}", Injector(lambda _: None))
        folders = [folder for _, _, folder in template.stored()]
        found = [one for one in folders if SHAPE.encode() in (one / template.CONSOLE).read_bytes()]
        if found:
            break
    # The one that was used last; an earlier session may have left one of an older kernel.
    folder = found[0]
    kept = tmp_path / "kept" / folder.name
    kept.parent.mkdir()
    subprocess.run(["cp", "-a", "--sparse=always", folder, kept], check=True)
    return kept


def restore_template(kept: Path) -> None:
    if not TEMPLATES.path(kept.name).exists():
        subprocess.run(["cp", "-a", "--sparse=always", kept, TEMPLATES.path(kept.name)], check=True)


@pytest.mark.timeout(1500)
# asyncio itself leaves a child's pipes open if an error occurs while it opens them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_at_every_await(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A child whose pipes are never opened is waited for that long, in two of the runs.
    monkeypatch.setattr("quizmatrix.core.process._START_LIMIT", 10.0)

    def strike(number: int) -> Exception:
        return OSError(errno.EIO, "injected") if number % 2 else HostError("injected")

    kept = saved_guest(tmp_path)
    injector = Injector(strike)
    seen: list[Outcome] = []
    # With a template, of which the guest is restored; then without, so that it is booted and saved.
    for has_template in (True, False):
        for number in range(200):
            if has_template:
                restore_template(kept)
            else:
                TEMPLATES.discard(TEMPLATES.path(kept.name))
            folder = tmp_path / f"{number}-{has_template}"
            result, notes = run_once(folder, injector)
            if injector.struck is None:
                break
            where = " > ".join(f"{function}:{line}" for _, function, line in injector.struck)
            print(f"{number}: {result.outcome} ({result.detail}) at {where}")
            seen.append(result.outcome)
            check_result(result, notes, where)
            check_what_is_left(folder, result)
        assert injector.struck is None
        assert result.outcome is Outcome.PASSED
        assert result.start is (StartKind.WARM if has_template else StartKind.COLD)
        assert result.detail == ""
    assert {Outcome.UNPREPARED, Outcome.LOST} <= set(seen)
    assert len(seen) > 20
