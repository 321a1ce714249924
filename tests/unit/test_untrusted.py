"""Files that a guest left are read and made safe without following its symlinks."""

import os
import resource
import signal
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import untrusted


def test_what_is_in_shared_is_made_safe(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "out").symlink_to("/etc/passwd")
    (tmp_path / "sub/up").symlink_to("../../x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "inside").symlink_to("sub")
    (tmp_path / "setuid").touch()
    (tmp_path / "setuid").chmod(0o4755)
    os.mkfifo(tmp_path / "fifo")
    changed = untrusted.make_safe(tmp_path)
    assert len(changed) == 5
    assert not (tmp_path / "fifo").exists()
    assert (tmp_path / "out").read_text() == "symbolic link to /etc/passwd\n"
    assert (tmp_path / "inside").is_symlink()
    assert (tmp_path / "setuid").stat().st_mode & 0o7777 == 0o755
    assert untrusted.make_safe(tmp_path) == []


def test_no_link_is_written_through(tmp_path: Path) -> None:
    """A symlink is replaced by a text file; the guest may have put a symlink at that file's name, too."""
    precious = tmp_path / "precious"
    precious.write_text("precious\n")
    left = tmp_path / "artifacts"
    left.mkdir()
    for name in ("a", "a.symlink", "a~", "b", "b.symlink"):
        (left / name).symlink_to(precious)
    untrusted.make_safe(left)
    assert precious.read_text() == "precious\n"
    assert not any(path.is_symlink() for path in left.iterdir())


def test_a_locked_folder_is_opened_and_searched(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked/out").symlink_to("/etc/passwd")
    (tmp_path / "locked").chmod(0)
    assert len(untrusted.make_safe(tmp_path)) == 1
    assert (tmp_path / "locked").stat().st_mode & 0o700 == 0o700


def test_what_is_too_deep_for_a_path_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "leak").symlink_to("/etc/passwd")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/leak").symlink_to("/etc/passwd")
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    changed = untrusted.make_safe(tmp_path)
    assert any("too deep" in text for text in changed)
    assert not (tmp_path / "leak").is_symlink()
    assert not (tmp_path / "other/leak").is_symlink()


def test_a_link_hidden_in_a_locked_folder_helps_no_other_out(tmp_path: Path) -> None:
    """While `u` cannot be read, `u/d/../../x` seems to stay inside; but u/d is a symlink upwards."""
    left = tmp_path / "artifacts"
    (left / "u").mkdir(parents=True)
    (tmp_path / "x").write_text("the host's")
    (left / "u/d").symlink_to("..")
    (left / "out").symlink_to("u/d/../x")
    (left / "u").chmod(0)
    untrusted.make_safe(left)
    assert (left / "out").read_text() == "symbolic link to u/d/../x\n"


def test_a_full_disk_leaves_no_link(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).symlink_to("/etc/passwd")
    # A file size limit of this process plays the full disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert len(untrusted.make_safe(tmp_path)) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, was)
    assert not any(path.is_symlink() for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "out"),
    [
        ("x", False),
        ("missing/x", False),
        ("missing/../../../x", True),
        ("sub/../x", False),
        ("sub/../../x", False),
        ("sub/../../../x", True),
        ("up/x", False),
        ("up/../x", True),
        ("/etc", True),
        ("/", True),
        ("..", False),
        ("../..", True),
        ("endless/x", True),
        ("//etc", True),
        ("./" * 200, True),
    ],
)
def test_which_links_lead_out(tmp_path: Path, target: str, out: bool) -> None:
    root = tmp_path / "root"
    (root / "here/sub").mkdir(parents=True)
    (root / "here/up").symlink_to("..")
    (root / "here/endless").symlink_to("endless")
    (root / "here/link").symlink_to(target)
    assert untrusted.leads_out(str(root), root / "here/link") is out


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert untrusted.read_end(tmp_path / "file", 3) == b"789"
    assert untrusted.read_end(tmp_path / "file", 100) == b"0123456789"
    for name in ("link", "fifo", "folder", "missing"):
        with pytest.raises(OSError, match=name):
            untrusted.read_end(tmp_path / name, 3)  # and none of them waits


def test_nothing_is_created_over_what_is_there(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (tmp_path / "dangling").symlink_to(precious)
    with pytest.raises(FileExistsError):
        untrusted.create(tmp_path / "dangling")
    assert not precious.exists()
    os.close(untrusted.create(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_what_is_moved_in_replaces_nothing(tmp_path: Path) -> None:
    left = tmp_path / "artifacts"
    (left / "vmcore").mkdir(parents=True)
    (left / "vmcore-1").symlink_to(tmp_path / "precious")
    (tmp_path / "vmcore").write_text("ours")
    assert untrusted.move_in(tmp_path / "vmcore", left) == left / "vmcore-2"
    assert (left / "vmcore-2").read_text() == "ours"
    assert (left / "vmcore-1").is_symlink()


def test_what_is_deeper_than_python_goes_is_removed(tmp_path: Path) -> None:
    (tmp_path / "host/here").mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    here = untrusted.open_folder(tmp_path / "host/here")
    for _ in range(1500):
        below = untrusted.make_folder(b"deep", at=here)
        os.symlink(tmp_path, b"link", dir_fd=below)
        os.close(here)
        here = below
    os.close(here)
    assert anyio.run(untrusted.remove, tmp_path / "host") == []
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
