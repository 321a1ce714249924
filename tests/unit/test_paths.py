"""Files are written completely or not at all."""

import os
import subprocess
from pathlib import Path

import anyio
import pytest

from quizmatrix.core.checksum import checksum_of, state_of
from quizmatrix.core.paths import locked, new_dir, write_atomic


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
    checksum = checksum_of(path)
    assert checksum.matches(path)
    path.write_bytes(b"contend")
    os.utime(path, ns=(0, 0))
    assert not checksum.matches(path)
    path.write_bytes(b"content")
    assert checksum.matches(path)
    path.write_bytes(b"conte")
    assert not checksum.matches(path)
    path.unlink()
    assert not checksum.matches(path)


def test_a_seal_reads_the_content_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    checksum = checksum_of(path)
    path.write_bytes(b"contend")
    os.utime(path, ns=(checksum.mtime_ns, checksum.mtime_ns))
    assert checksum.matches(path)
    assert not checksum.matches(path, thoroughly=True)


def test_the_state_of_a_tree_tells_each_change(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below" / ".git").mkdir(parents=True)
    (tree / "file").write_text("1")
    (tree / "link").symlink_to("below")
    states = [state_of(tree)]
    (tree / "below" / ".git" / "index").touch()
    assert state_of(tree) == states[0]
    (tree / "below" / "new").touch()
    states.append(state_of(tree))
    (tree / "link").unlink()
    states.append(state_of(tree))
    (tree / "file").write_text("22")
    states.append(state_of(tree))
    assert len(set(states)) == 4
    assert state_of(tree, at_most=1) == ""


def test_a_tree_that_is_deeper_than_a_function_may_recurse(tmp_path: Path) -> None:
    descriptors = [os.open(tmp_path, os.O_RDONLY)]
    try:
        for _ in range(1500):  # "d/" each: less than PATH_MAX
            os.mkdir("d", dir_fd=descriptors[-1])
            descriptors.append(os.open("d", os.O_RDONLY, dir_fd=descriptors[-1]))
            os.close(descriptors.pop(-2))
        before = state_of(tmp_path)
        os.close(os.open("deep", os.O_CREAT, dir_fd=descriptors[-1]))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        assert state_of(tmp_path) != before
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
