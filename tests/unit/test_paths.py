"""Files are written whole or not at all."""

import os
from pathlib import Path

import anyio
import pytest

from quizmatrix.paths import locked, new_dir, write_atomic
from quizmatrix.seal import seal_of


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="irectory"):
        write_atomic(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_folder_appears_when_it_is_done(tmp_path: Path) -> None:
    with new_dir(tmp_path / "a/b") as made:
        (made / "x").touch()
        assert not (tmp_path / "a/b").exists()
    assert (tmp_path / "a/b/x").exists()


def test_a_folder_whose_making_failed_is_not_there(tmp_path: Path) -> None:
    def fail() -> None:
        with new_dir(tmp_path / "b") as made:
            (made / "x").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_makers_wins(tmp_path: Path) -> None:
    with new_dir(tmp_path / "b") as made:
        (made / "mine").touch()
        with new_dir(tmp_path / "b") as other:
            (other / "first").touch()
    assert [entry.name for entry in (tmp_path / "b").iterdir()] == ["first"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    inside: list[str] = []
    waited: list[bool] = []

    async def work(name: str) -> None:
        async with locked(tmp_path / "lock", lambda: waited.append(True)):
            inside.append(f"{name} in")
            await anyio.sleep(0.01)
            inside.append(f"{name} out")

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(work, "a")
            group.start_soon(work, "b")

    anyio.run(both)
    assert inside in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
    assert waited == [True]


def test_a_seal_tells_damage(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    seal = seal_of(path)
    assert seal.fits(path)
    path.write_bytes(b"contend")
    os.utime(path, ns=(0, 0))
    assert not seal.fits(path)
    path.write_bytes(b"content")
    assert seal.fits(path)
    path.write_bytes(b"conte")
    assert not seal.fits(path)
    path.unlink()
    assert not seal.fits(path)


def test_a_seal_reads_the_content_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    seal = seal_of(path)
    path.write_bytes(b"contend")
    os.utime(path, ns=(seal.mtime_ns, seal.mtime_ns))
    assert seal.fits(path)
    assert not seal.fits(path, thoroughly=True)
