"""Only the owner can read runs, history and nightly jobs."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from quizmatrix.core import paths, private
from quizmatrix.runs import directory
from quizmatrix.runs.history import database
from tests.unit.test_history import result


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state directory of a user with umask 0."""
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "state"))
    before = os.umask(0)
    yield tmp_path / "state"
    os.umask(before)


def open_to_others(top: Path) -> list[str]:
    """The files below `top` that other users can read; they can reach `top` itself."""
    found = []
    for path in top.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            continue
        if mode & 0o077:
            found.append(str(path.relative_to(top)))
        if stat.S_ISDIR(mode) and mode & 0o011:
            found += [f"{path.name}/{name}" for name in open_to_others(path)]
    return found


def begin(output: Path | None) -> directory.RunDirectory:
    """A run with a result."""
    run_directory = directory.create(output, ["true"], arguments=["--env", "TOKEN=secret"])
    run_directory.cell_folder("6.1-x86_64")
    run_directory.write_cell("6.1-x86_64", result("6.1-x86_64"))
    run_directory.write_cell("6.1-s390x", result("6.1-s390x"))
    run_directory.finish(run_directory.results.cells, 0)
    return run_directory


def test_a_run_and_the_history(state: Path) -> None:
    run_directory = begin(None)
    with database.connected() as connection:
        connection.execute("SELECT * FROM runs")
        assert open_to_others(state) == []
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((run_directory.folder / directory.EVENTS).stat().st_mode) == 0o600


def test_an_output_folder_of_the_users_stays_as_it_is(state: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir(mode=0o755)
    begin(output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o755
    assert open_to_others(output) == []
    paths.write_atomic(output / "junit.xml", b"", mode=0o664)
    assert open_to_others(output) == ["junit.xml"]
    assert not state.exists()


def test_what_an_earlier_version_left_open_is_closed(state: Path) -> None:
    names = [
        "runs/old/results.json",
        "nightly/n.json",
        "disks/d/quizb0.raw",
        "history.sqlite",
        "history.lock",
    ]
    for name in [*names, "not-ours"]:
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).touch()
    (state / "history.sqlite-wal").symlink_to("not-ours")
    begin(None)
    # The variable may name a folder that has other files, too.
    assert open_to_others(state) == ["not-ours"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o777


def test_the_usual_state_directory_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUIZMATRIX_STATE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "quizmatrix").mkdir(mode=0o755)
    assert private.state_dir() == tmp_path / "quizmatrix"
    assert stat.S_IMODE((tmp_path / "quizmatrix").stat().st_mode) == 0o700
