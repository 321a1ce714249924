"""What is printed while cells run for long and nothing happens."""

import io

import anyio
import pytest

from quizmatrix.model.events import CellReached
from quizmatrix.model.stage import Stage
from quizmatrix.report import progress


def printed(stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch) -> str:
    """The first line of a run's heartbeat."""
    monkeypatch.setattr(progress, "HEARTBEAT", 0.01)
    stream = io.StringIO()
    lines = progress.Lines(progress.Screen(stream), [*stages])

    async def run() -> None:
        for cell, stage in stages.items():
            lines.see(CellReached(cell=cell, stage=stage, attempt=1))
        with anyio.move_on_after(0.5):
            await lines.keep()

    anyio.run(run)
    return next(line for line in stream.getvalue().splitlines() if "still at it" in line)


def test_cells_that_wait_for_room_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = {f"6.1-s390x@{number}of40": Stage.WAITING for number in range(1, 41)}
    line = printed({"6.1-x86_64": Stage.RUNNING, **waiting}, monkeypatch)
    assert "still at it: 6.1-x86_64 (running " in line
    assert line.endswith("); 40 waiting for room")


def test_of_many_cells_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    line = printed({f"cell{number}": Stage.RUNNING for number in range(30)}, monkeypatch)
    assert "cell9 (running" in line
    assert line.endswith(" and 20 more")
