"""The store: an artifact is complete or absent, made once, and not removed while it is used."""

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import uses
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError
from quizmatrix.core.store import Store, key_of

TOYS = Store(what="toy", folder="toys", record="{}/toy.json", stays=100.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


async def fill(folder: Path, text: str = "1") -> None:
    (folder / "toy.json").write_text(text)


def once(key: str = "a", **options: object) -> Path:
    async def play() -> Path:
        settings = {"make": fill, "action": "make the toy", "waiting": lambda: None} | options
        return await TOYS.get_or_make(key, **settings)  # type: ignore[arg-type]

    return anyio.run(play)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_keys() -> None:
    assert key_of(["a", "b"]) == key_of(["a\nb"]) != key_of(["b", "a"])
    assert len(key_of(["a"])) == 16
    assert key_of(["a"], 64).startswith(key_of(["a"], 8))


def test_an_artifact_is_made_where_there_is_none(cache: Path) -> None:
    assert TOYS.stored() == []
    assert TOYS.read("a", int) is None
    assert once() == cache / "toys/a"
    assert TOYS.read("a", int) == 1
    inode = (cache / "toys/a").stat().st_ino
    assert once().stat().st_ino == inode
    once("b")
    assert TOYS.stored() == ["a", "b"]


def test_a_damaged_one_is_made_again() -> None:
    def find(key: str) -> int | None:
        if (found := TOYS.read(key, int)) == 0:
            raise DamagedError("it is 0")
        return found

    path = once(find=find)
    (path / "toy.json").write_text("0")
    assert TOYS.read("a", int) == 0
    once(find=find)
    assert TOYS.read("a", int) == 1
    (path / "toy.json").write_text("{")
    with pytest.raises(DamagedError, match=f"the cached toy in {path} is damaged"):
        TOYS.read("a", int)
    once(find=find)
    assert TOYS.read("a", int) == 1
    (path / "toy.json").unlink()
    assert TOYS.stored() == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UnpreparedError("no"), KeyError()])
def test_nothing_is_left_of_one_that_could_not_be_made(error: Exception, cache: Path) -> None:
    async def fail(folder: Path) -> None:
        await fill(folder)
        raise error

    wanted = HostError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted) as caught:
        once(make=fail)
    if isinstance(error, OSError):
        assert str(caught.value) == "cannot make the toy: No space left on device"
    assert left(cache / "toys") == []
    once()


MAKE = """
import sys, time, anyio
from pathlib import Path
from quizmatrix.core.store import Store

async def make(folder):
    with Path(sys.argv[1]).open("a") as made:
        made.write("made ")
    time.sleep(0.3)
    (folder / "toy.json").write_text("1")

toys = Store(what="toy", folder="toys")
anyio.run(lambda: toys.get_or_make("a", make, action="make it", waiting=lambda: None))
"""


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", MAKE, str(tmp_path / "made")]
    several = [subprocess.Popen(argv) for _ in range(3)]
    assert [one.wait() for one in several] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "made "
    assert TOYS.stored() == ["a"]


def test_references() -> None:
    assert TOYS.read_reference("name") is None
    TOYS.write_reference("name", b"a")
    TOYS.write_reference("another", b"b")
    TOYS.write_reference("name", b"c")
    assert TOYS.read_reference("name") == b"c"
    assert list(TOYS.references()) == [("another", b"b"), ("name", b"c")]


def test_a_reference_that_cannot_be_written(cache: Path) -> None:
    cache.mkdir()
    (cache / "toys").write_text("in the way")
    with pytest.raises(HostError, match="cannot write the toy cache"):
        TOYS.write_reference("name", b"a")


def test_what_is_used_is_neither_removed_nor_evicted(cache: Path) -> None:
    path = once()
    os.utime(path, (1000, 1000))

    async def play() -> None:
        held = uses.Uses()
        assert await held.hold(path)
        with pytest.raises(HostError, match="the toy a is in use"):
            TOYS.remove("a")
        TOYS.evict([path])
        assert path.is_dir()
        held.release()

    anyio.run(play)
    TOYS.remove("a")
    assert left(cache / "toys") == []
    assert not list((cache / "locks").glob("used-*"))
    TOYS.remove("a")


def test_what_is_old_enough_is_evicted(cache: Path) -> None:
    paths = [once(key) for key in ("old", "young", "kept")]
    os.utime(paths[0], (time.time() - 101,) * 2)
    os.utime(paths[1], (time.time() - 50,) * 2)
    os.utime(paths[2], (1000, 1000))
    TOYS.evict([*paths[:2], cache / "toys/none"])
    assert left(cache / "toys") == ["kept", "young"]


def test_the_rest_of_a_removal_that_was_cut_short_is_in_no_ones_way(cache: Path) -> None:
    path = once()
    path.rename(path.with_name(".a.removed"))
    assert TOYS.stored() == []
    once()
    TOYS.remove("a")
    assert left(cache / "toys") == []
