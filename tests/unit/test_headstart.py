"""What was started on a guess is taken if it is the right one, and leaves nothing behind if it is not."""

import errno
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quizmatrix.core import process
from quizmatrix.run import headstart
from quizmatrix.run.headstart import FOLDER_MARK, Guess, HeadStart, mark
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
    (tmp_path / "seen").mkdir()
    return Guess(
        cell="6.1-x86_64",
        before=process.tied_to_parent([])[:-1],
        argv=WORDS,
        ports=["control", "qmp"],
        memory=str(tmp_path / "memory"),
        state=str(tmp_path / "state"),
        folders=[str(tmp_path / "seen")],
        joined={},
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


def started(guess: Guess) -> HeadStart:
    """What a run begins with where the last one has kept the guess."""
    kept(guess)
    headstart.begin(ARGV)
    begun = headstart.for_cell("6.1-x86_64")
    assert begun is not None
    return begun


def begin(guess: Guess, place: Path) -> HeadStart:
    """What is begun on a guess, which was given the folder of a cell at `place`."""
    begun = started(guess)
    place.mkdir()
    headstart.make_folders("6.1-x86_64", place)
    headstart.release()
    return begun


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers here, so nobody is waited for."""
    monkeypatch.setattr("quizmatrix.run.restoring.restore", restored)


def restored(
    monitor: socket.socket,
    control: socket.socket,
    state: Path,
    on_ready: Callable[[], None],
    *,
    joins: bool,
) -> str:
    on_ready()
    return ""


def test_the_right_guess_is_taken(guess: Guess, tmp_path: Path) -> None:
    begun = begin(guess, tmp_path / "cell")
    assert not begun.is_for("6.1-s390x")
    (before,) = begun_folders()
    assert sorted(path.name for path in (tmp_path / "cell").iterdir()) == ["artifacts", "layer"]
    assert begun.take(WORDS, guess.memory, tmp_path / "cell")
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
    assert begun.wait() == ""
    # Whoever took it keeps it when the rest ends.
    headstart.end()
    assert is_running(begun.child.pid)
    begun.child.kill()
    assert not is_running(begun.child.pid)
    begun.ends.close()


def test_the_guest_joins_its_layers_meanwhile(guess: Guess, tmp_path: Path) -> None:
    joined = {"hostname": "a", "layers": "modules\nuser0"}
    begun = begin(guess._replace(joined=joined), tmp_path / "cell")
    own = tmp_path / "cell/layer/.quizmatrix"
    texts = {path.name: path.read_text() for path in own.iterdir()}
    assert texts == {"hostname": "a\n", "layers": "modules\nuser0\n"}
    # Any user of the guest may read them.
    assert {path.stat().st_mode & 0o777 for path in [own, *own.iterdir()]} == {0o755, 0o644}
    begun.drop()


@pytest.mark.parametrize(
    ("begun", "now", "lives"),
    [
        ({"layers": "modules"}, {"layers": "modules"}, True),
        ({"layers": "modules"}, {"layers": "user0"}, False),
        ({"layers": "modules"}, {"layers": "modules", "names": "a\nb"}, False),
        # It may not join ahead of this run.
        ({"layers": "modules"}, {}, False),
        ({}, {"layers": "modules"}, True),
        ({}, {}, True),
    ],
)
def test_a_guest_that_joins_by_other_files_is_killed(
    begun: dict[str, str], now: dict[str, str], lives: bool, guess: Guess, tmp_path: Path
) -> None:
    child = started(guess._replace(joined=begun)).child
    cell, own = tmp_path / "cell", tmp_path / "cell/layer/.quizmatrix"
    cell.mkdir()
    headstart.make_folders("6.1-x86_64", cell)
    before = {path.name: path.stat() for path in own.iterdir()} if begun else {}
    texts = {"layers": "modules", "binds": ""} | now
    headstart.make_own_files_for("6.1-x86_64", cell, texts, now)
    assert is_running(child.pid) == lives
    after = {path.name: path.stat() for path in own.iterdir()}
    if lives and begun:
        # A guest may be reading them.
        assert after == before
    else:
        assert {path.name: path.read_text() for path in own.iterdir()} == {
            name: f"{text}\n" for name, text in texts.items()
        }


def same(_guess: Guess, _place: Path) -> None:
    """Changes nothing."""


def made_anew(guess: Guess, _place: Path) -> None:
    Path(guess.memory).unlink()
    Path(guess.memory).write_text("memory")


def removed(guess: Guess, _place: Path) -> None:
    Path(guess.memory).unlink()


def other_folder(guess: Guess, _place: Path) -> None:
    Path(guess.folders[0]).rename(f"{guess.folders[0]}.old")
    Path(guess.folders[0]).mkdir()


@pytest.mark.parametrize(
    ("more", "memory", "cell", "change"),
    [
        (["-snapshot"], "memory", "cell", same),
        ([], "state", "cell", same),
        ([], "memory", "other", same),
        ([], "memory", "cell", made_anew),
        ([], "memory", "cell", removed),
        ([], "memory", "cell", other_folder),
    ],
)
def test_a_wrong_guess_is_killed(
    more: list[str],
    memory: str,
    cell: str,
    change: Callable[[Guess, Path], None],
    guess: Guess,
    tmp_path: Path,
) -> None:
    begun = begin(guess, tmp_path / "cell")
    change(guess, tmp_path)
    assert not begun.take([*WORDS, *more], str(tmp_path / memory), tmp_path / cell)
    assert not is_running(begun.child.pid)
    assert begun_folders() == []


def test_what_has_ended_is_not_taken(guess: Guess, tmp_path: Path) -> None:
    begun = begin(guess._replace(argv=["false"]), tmp_path / "cell")
    wait_for(lambda: not is_running(begun.child.pid))
    assert not begun.take(["false"], guess.memory, tmp_path / "cell")


def test_nor_is_what_was_not_restored(guess: Guess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quizmatrix.run.restoring.restore", lambda *_, **__: "QEMU does not like it")
    begun = begin(guess, tmp_path / "cell")
    assert begun.wait() == "QEMU does not like it"
    assert not begun.take(WORDS, guess.memory, tmp_path / "cell")


def test_it_does_not_wait_for_hours(guess: Guess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headstart, "_PATIENCE", 0.1)
    begun = begin(guess, tmp_path / "cell")
    wait_for(lambda: not is_running(begun.child.pid))
    assert not begun.take(WORDS, guess.memory, tmp_path / "cell")


@pytest.mark.parametrize("moved", [0, 1])
def test_folders_that_cannot_be_moved_are_made(
    moved: int, guess: Guess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the results are on another disk."""
    begun = started(guess)
    rename, left = Path.rename, moved

    def refuse(path: Path, to: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EXDEV, "another disk")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    cell = tmp_path / "cell"
    cell.mkdir()
    headstart.make_folders("6.1-x86_64", cell)
    assert sorted(path.name for path in cell.iterdir()) == ["artifacts", "layer"]
    assert not is_running(begun.child.pid)
    assert headstart.for_cell("6.1-x86_64") is None


def test_names_of_any_bytes(guess: Guess, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    Path(odd).mkdir()
    argv = [*WORDS, f"path={odd},readonly=on"]
    begun = begin(guess._replace(argv=argv, folders=[odd]), tmp_path / "cell")
    assert begun.take(argv, guess.memory, tmp_path / "cell")
    begun.child.kill()
    begun.ends.close()


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_another_user_could_have_written_is_not_begun(what: str, guess: Guess, tmp_path: Path) -> None:
    place = kept(guess)
    if what == "file":
        place.chmod(0o666)
    elif what == "folder":
        place.parent.chmod(0o777)
    else:
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is None


def test_it_inherits_what_it_is_given_and_nothing_else(guess: Guess, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        argv = ["sh", "-c", "ls -l /proc/self/fd; exec sleep 3600"]
        begun = begin(guess._replace(argv=argv), tmp_path / "cell")
        assert begun.take(argv, guess.memory, tmp_path / "cell")
    said = b""
    while said.count(b"\n") < 7:
        try:
            said += os.read(begun.ends.log[0], 4096)
        except BlockingIOError:
            time.sleep(0.01)
    begun.child.kill()
    begun.ends.close()
    assert b"secret" not in said
    # The two ports and the console; ls's own is the folder's.
    assert said.count(b"socket:") == 2
    assert said.count(b"pipe:") == 3


def test_what_nobody_takes_ends_with_the_run(guess: Guess, tmp_path: Path) -> None:
    begun = started(guess)
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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cell": "6.1-x86_64"}', "\0", "[" * 5000])
def test_a_damaged_guess_is_none(text: str, guess: Guess) -> None:
    none_begins_with(text, guess)


@pytest.mark.parametrize(
    "keys",
    [{"joined": [1]}, {"joined": {"a": 1}}, {"argv": [1]}, {"state": 1}, {"folders": None}, {"more": ""}],
)
def test_nor_is_one_of_other_types(keys: dict[str, object], guess: Guess) -> None:
    none_begins_with(json.dumps(guess._asdict() | keys), guess)


def none_begins_with(text: str, guess: Guess) -> None:
    """Nothing is begun on a file with this text, and the next run replaces it."""
    kept(guess).write_text(text)
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is None
    assert begun_folders() == []
    headstart.keep(guess)
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is not None


@pytest.mark.parametrize("what", ["memory", "before"])
def test_a_guess_of_what_is_gone_is_none(what: str, guess: Guess) -> None:
    gone: dict[str, Any] = {"memory": "/no/template"} if what == "memory" else {"before": ["/no/setpriv"]}
    kept(guess._replace(**gone))
    before = children_of(os.getpid())
    headstart.begin(ARGV)
    assert headstart.for_cell("6.1-x86_64") is None
    assert begun_folders() == []
    assert not {*children_of(os.getpid())} - {*before}


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
