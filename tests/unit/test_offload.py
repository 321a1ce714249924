"""Functions called in a separate process: their results and errors."""

import errno
import os
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from quizmatrix.core import offload, untrusted
from quizmatrix.core.errors import HostError
from quizmatrix.core.json import encode_exactly
from quizmatrix.run.shared import make_files_safe
from quizmatrix.subtests import reading
from quizmatrix.subtests.summary import SubtestSummary


def call(function: Any, *arguments: str | bool | int, returns: Any) -> Any:
    return anyio.run(partial(offload.call, function, *arguments, returns=returns))


def test_many_files_are_looked_through(tmp_path: Path) -> None:
    # A name that is not UTF-8.
    left = tmp_path / os.fsdecode(b"left\xff")
    left.mkdir()
    for number in range(30):
        (left / f"link{number:02}").symlink_to("/etc/passwd")
    assert untrusted.has_more_than(tmp_path, 30)
    assert not untrusted.has_more_than(tmp_path, 31)
    changed, count = call(make_files_safe, str(left), 5, returns=tuple[list[str], int])
    assert count == 30
    assert len(changed) == 5
    assert all("was a symbolic link to /etc/passwd" in line for line in changed)
    assert not any(path.is_symlink() for path in left.iterdir())
    assert make_files_safe(str(left), 5) == ([], 0)


def test_results_come_without_the_names(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("TAP version 13\n1..2\nok 1 - a\nnot ok 2 - b\n")
    given = encode_exactly(reading.CellOutput(folder=str(tmp_path))).decode()
    here = reading.keep(given)
    (tmp_path / reading.FILE).unlink()
    assert call(reading.keep, given, returns=SubtestSummary) == here
    assert here.counts == {"passed": 1, "failed": 1}
    assert here.failure == "1 of 2 tests failed"
    assert [test.name for test in reading.load(tmp_path)] == ["a", "b"]


def test_errors_are_those_of_the_work(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing-here") as caught:
        call(make_files_safe, str(tmp_path / "nothing-here"), 5, returns=tuple[list[str], int])
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(HostError, match="a helper process ended with status 1") as told:
        call(reading.keep, returns=SubtestSummary)
    assert "TypeError" in told.value.cause
