"""Files of a guest in QEMU's mapped security models, and how they become ordinary files."""

import os
import stat
from pathlib import Path

import pytest

from quizmatrix.run import mapped
from quizmatrix.run.mappedroot import Model, prepare

FILES = {
    "file": stat.S_IFREG | 0o640,
    "program": stat.S_IFREG | 0o4755,
    "link": stat.S_IFLNK | 0o777,
    "pipe": stat.S_IFIFO | 0o644,
    "disk": stat.S_IFBLK | 0o660,
    "folder": stat.S_IFDIR | 0o1555,
}


def as_qemu_leaves_it(root: Path, model: Model) -> None:
    for name, mode in FILES.items():
        path = root / name
        if stat.S_ISDIR(mode):
            path.mkdir(mode=0o700)
        else:
            path.write_text("file" if stat.S_ISLNK(mode) else "")
            path.chmod(0o600)
        if model is Model.XATTR:
            os.setxattr(path, "user.virtfs.mode", mode.to_bytes(4, "little"))
            os.setxattr(path, "user.virtfs.uid", (65534).to_bytes(4, "little"))
        else:
            (root / ".virtfs_metadata").mkdir(mode=0o700, exist_ok=True)
            text = f"virtfs.uid=65534\nvirtfs.gid=65534\nvirtfs.mode={mode}\n"
            (root / ".virtfs_metadata" / name).write_text(text)


@pytest.mark.parametrize("model", [Model.XATTR, Model.FILE])
def test_files_become_what_they_were_to_the_guest(model: Model, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    root.mkdir()
    if prepare(root) is not Model.XATTR:
        pytest.skip("no extended attributes on this file system")
    (root / ".virtfs_metadata_root").write_text("virtfs.mode=16895\n")
    as_qemu_leaves_it(root, model)
    below = root / "folder"
    as_qemu_leaves_it(below, model)
    (root / "of the host").write_text("")
    (root / "of the host").chmod(0o604)
    changed = mapped.unmap(root)
    lost = [
        "disk was not a regular file; removed",
        "pipe was not a regular file; removed",
        "program was set-user-ID",
    ]
    assert sorted(changed) == sorted([*lost, *(f"folder/{line}" for line in lost)])
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in root.iterdir()}
    assert modes.pop("link") == 0o777
    assert modes == {"file": 0o640, "program": 0o755, "folder": 0o755, "of the host": 0o604}
    assert (below / "link").readlink() == Path("file")
    assert not any(os.listxattr(path) for path in root.rglob("*") if not path.is_symlink())


def test_what_nobody_mapped_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    assert mapped.unmap(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]
