"""What was started on a guess is taken if it is the right one, and leaves nothing behind if it is not."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quizmatrix.core import process
from quizmatrix.run import headstart
from quizmatrix.run.headstart import FOLDER_MARK, Guess, mark
from tests.vm.processes import children_of, is_running, wait_for

ARGV = ("run", "--only", "6.1-x86_64", "--", "true")
# In place of QEMU: it says which words it got, and then nothing for an hour.
WORDS = ["sh", "-c", 'echo "$@"; exec sleep 3600', "sh", f"path={FOLDER_MARK}/layer", f"fd={mark('qmp')}"]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    yield
    headstart.end()


@pytest.fixture
def guess(tmp_path: Path) -> Guess:
    for name in ("memory", "state"):
        (tmp_path / name).write_text(name)
    return Guess(
        cell="6.1-x86_64",
        before=process.tied_to_parent([])[:-1],
        argv=WORDS,
        ports=["control", "qmp"],
        memory=str(tmp_path / "memory"),
        state=str(tmp_path / "state"),
    )


def kept(guess: Guess) -> Path:
    """Let the last run of ARGV have kept the guess; its file."""
    headstart.begin(ARGV)
    headstart.keep(guess)
    headstart.end()
    (place,) = folder().glob("*.json")
    return place


def folder() -> Path:
    return Path(os.environ["QUIZMATRIX_STATE_DIR"]) / "guesses"


def begun_folders() -> list[Path]:
    return [path for path in folder().iterdir() if path.is_dir()]


def test_the_right_guess_is_taken(guess: Guess, tmp_path: Path) -> None:
    kept(guess)
    headstart.begin(ARGV)
    begun = headstart.for_cell("6.1-x86_64")
    assert begun is not None
    assert headstart.for_cell("6.1-s390x") is None
    (before,) = begun_folders()
    cell = tmp_path / "cell"
    cell.mkdir()
    headstart.make_folders("6.1-x86_64", cell)
    assert sorted(path.name for path in cell.iterdir()) == ["artifacts", "layer"]
    headstart.take()
    assert begun.take(WORDS, guess.memory)
    assert begun_folders() == []
    # It had the folder's first name, and an end of a port.
    told = b""
    while b"\n" not in told:
        try:
            told += os.read(begun.ends.log[0], 4096)
        except BlockingIOError:
            time.sleep(0.01)
    assert told.split()[0] == f"path={before}/layer".encode()
    assert re.fullmatch(rb"fd=\d+", told.split()[1])
    # Whoever took it keeps it when the rest ends.
    headstart.end()
    assert is_running(begun.child.pid)
    begun.child.kill()
    wait_for(lambda: not is_running(begun.child.pid))
    begun.ends.close()


def changed_argv(guess: Guess) -> tuple[list[str], str]:
    return [*guess.argv, "-snapshot"], guess.memory


def changed_template(guess: Guess) -> tuple[list[str], str]:
    Path(guess.memory).unlink()
    Path(guess.memory).write_text("made anew")
    return guess.argv, guess.memory


def removed_template(guess: Guess) -> tuple[list[str], str]:
    Path(guess.memory).unlink()
    return guess.argv, guess.memory


def other_template(guess: Guess) -> tuple[list[str], str]:
    return guess.argv, guess.state


@pytest.mark.parametrize("change", [changed_argv, changed_template, removed_template, other_template])
def test_a_wrong_guess_is_killed(change: object, guess: Guess) -> None:
    kept(guess)
    headstart.begin(ARGV)
    begun = headstart.for_cell("6.1-x86_64")
    assert begun is not None
    headstart.take()
    assert callable(change)
    assert not begun.take(*change(guess))
    wait_for(lambda: not is_running(begun.child.pid))
    assert begun_folders() == []


def test_what_has_ended_is_not_taken(guess: Guess) -> None:
    kept(msgspec.structs.replace(guess, argv=["false"]))
    headstart.begin(ARGV)
    begun = headstart.for_cell("6.1-x86_64")
    assert begun is not None
    wait_for(lambda: not is_running(begun.child.pid))
    assert not begun.take(["false"], guess.memory)
    assert begun.wait()


def test_what_nobody_takes_ends_with_the_run(guess: Guess, tmp_path: Path) -> None:
    kept(guess)
    headstart.begin(ARGV)
    begun = headstart.for_cell("6.1-x86_64")
    assert begun is not None
    headstart.end()
    wait_for(lambda: not is_running(begun.child.pid))
    assert begun_folders() == []
    cell = tmp_path / "cell"
    cell.mkdir()
    headstart.make_folders("6.1-x86_64", cell)
    assert (cell / "layer").is_dir()


@pytest.mark.parametrize(
    ("argv", "is_same"),
    [
        (("run", "--only", "6.1-x86_64", "--", "true", "other", "arguments"), True),
        (("run", "--only", "6.1-x86_64", "--", "false"), False),
        (("run", "--only", "6.1-x86_64", "-v", "--", "true"), False),
        (("run", "--only", "6.1-x86_64"), False),
        (("shell", "--only", "6.1-x86_64", "--", "true"), False),
        ((), False),
    ],
)
def test_what_a_guess_is_for(argv: tuple[str, ...], is_same: bool, guess: Guess) -> None:
    kept(guess)
    headstart.begin(argv)
    assert (headstart.for_cell("6.1-x86_64") is not None) == is_same


def test_nor_is_it_for_another_folder(guess: Guess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(guess)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cell": "6.1-x86_64"}', "\0"])
def test_a_damaged_guess_is_none(text: str, guess: Guess) -> None:
    kept(guess).write_text(text)
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is None
    assert begun_folders() == []
    # The next one replaces it.
    headstart.keep(guess)
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is not None


@pytest.mark.parametrize("what", ["memory", "before"])
def test_a_guess_of_what_is_gone_is_none(what: str, guess: Guess) -> None:
    gone: dict[str, object] = {"memory": "/no/template"} if what == "memory" else {"before": ["/no/setpriv"]}
    kept(msgspec.structs.replace(guess, **gone))
    before = children_of(os.getpid())
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is None
    assert begun_folders() == []
    assert children_of(os.getpid()) == before


def test_the_latest_guesses_are_kept_and_nothing_of_killed_processes(
    guess: Guess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headstart, "_MOST", 3)
    for number in range(5):
        headstart.begin(("run", "--", str(number)))
        headstart.keep(guess)
        headstart.end()
        for path in folder().glob("*.json"):
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    left = folder() / ".begun-1-2"
    (left / "layer").mkdir(parents=True)
    headstart.begin(("run", "--", "last"))
    headstart.keep(guess)
    assert left.exists()
    os.utime(left, (0, 0))
    headstart.keep(guess)
    assert not left.exists()
    assert len(list(folder().glob("*.json"))) == 3


def test_a_guess_is_for_its_owner_alone(guess: Guess) -> None:
    place = kept(guess)
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
