"""When each cell of a run ran, and where."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core.json import encode
from quizmatrix.runs import spans
from quizmatrix.runs.spans import Span
from tests.unit.test_report import result


def written(folder: Path, *events: tuple[int, dict[str, object]]) -> Path:
    """An events.jsonl with these events, so many seconds after noon."""
    path = folder / "events.jsonl"
    lines = [encode({"time": f"2026-12-01T12:00:{second:02}.000+00:00"} | event) for second, event in events]
    path.write_bytes(b"\n".join(lines) + b'\n{"cut off')
    return path


def reached(cell: str, stage: str, host: str = "") -> dict[str, object]:
    return {"event": "stage", "cell": cell, "stage": stage, "host": host}


def test_the_times_of_cells(tmp_path: Path) -> None:
    begun: dict[str, object] = {"event": "run-started", "run": "r", "command": [], "started": "x"}
    path = written(
        tmp_path,
        (0, begun),
        (1, reached("a-x", "preparing")),
        (2, reached("a-x", "booting", "one")),
        (3, reached("b-x", "booting", "one")),
        (4, reached("a-x", "running", "one")),
        (5, {"event": "finished", "result": result("b-x")}),
        # The first host of `a` was lost.
        (6, reached("a-x", "booting", "two")),
        (7, reached("c-x", "booting", "one")),
        (9, {"event": "finished", "result": result("a-x")}),
        (10, {"event": "finished", "result": result("c-x")}),
        # Its tests that failed run once more, in another guest.
        (20, reached("e-x", "running")),
        (22, reached("e-x", "waiting")),
        (23, reached("e-x", "booting")),
        (24, {"event": "finished", "result": result("e-x")}),
        # It was never booted.
        (25, {"event": "finished", "result": result("d-x")}),
    )
    b, a, a_again, c, e, e_again = spans.read(path)
    assert b == Span(cell="b-x", host="one", began=3, ended=5)
    assert a == Span(cell="a-x", host="one", began=2, ended=6, is_last=False)
    assert a_again == Span(cell="a-x", host="two", began=6, ended=9)
    assert c == Span(cell="c-x", host="one", began=7, ended=10)
    assert e == Span(cell="e-x", host="", began=20, ended=22)
    assert e_again == Span(cell="e-x", host="", began=23, ended=24)
    assert spans.lanes([b, a, a_again, c]) == {"one": [[a, c], [b]], "two": [[a_again]]}
