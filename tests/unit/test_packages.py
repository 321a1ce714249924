"""Packages from outside: what they hold comes out, and nothing else; hostile ones write nothing anywhere."""

import os
import struct
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import packagefile
from quizmatrix.core.errors import DamagedError, QuizmatrixError, UsageError
from tests.packing import (
    DEVICE,
    FIFO,
    FOLDER,
    LINK,
    REGULAR,
    SYMLINK,
    Entry,
    ar,
    deb,
    payload,
    rpm,
    tar,
)

GOOD: list[Entry] = [
    ("./boot/vmlinuz-6.1", REGULAR, b"image"),
    ("./usr/bin/tool.sh", REGULAR, b"#!/bin/sh\n"),
    ("./lib/modules/6.1/build", SYMLINK, b"/usr/src/headers"),
    ("./usr/src/headers/Makefile", SYMLINK, b"../common/Makefile"),
    ("./usr/src/common/Makefile", REGULAR, b"all:\n"),
]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """The folder to unpack into; beside it is a file that nobody may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("precious")
    folder = tmp_path / "cache/into"
    folder.mkdir(parents=True)
    return folder


def make(folder: Path, kind: str, entries: list[Entry]) -> Path:
    if kind == "deb":
        return deb(folder / "p.deb", entries)
    return rpm(folder / "p.rpm", payload(entries))


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_what_a_package_holds(kind: str, into: Path, tmp_path: Path) -> None:
    anyio.run(packagefile.unpack, [make(tmp_path, kind, GOOD)], into)
    assert (into / "boot/vmlinuz-6.1").read_bytes() == b"image"
    assert (into / "lib/modules/6.1/build/Makefile").read_bytes() == b"all:\n"
    if kind == "deb":
        assert (into / "usr/bin/tool.sh").stat().st_mode & 0o7777 == 0o755


def test_packages_lie_over_each_other(into: Path, tmp_path: Path) -> None:
    one = deb(tmp_path / "1.deb", [("a/x", REGULAR, b"1"), ("a/y", REGULAR, b"1"), ("a", FOLDER, b"")])
    two = rpm(tmp_path / "2.rpm", payload([("a/x", REGULAR, b"2")]))
    packagefile.unpack_here([one, two], into)
    assert ((into / "a/x").read_text(), (into / "a/y").read_text()) == ("2", "1")


def test_hard_links_have_the_content_of_their_file(into: Path, tmp_path: Path) -> None:
    entries: list[Entry] = [
        ("d/one", REGULAR, b"same"),
        ("d/two", LINK, b"./d/one"),
        ("d/one", REGULAR, b"new"),
    ]
    packagefile.unpack_here([deb(tmp_path / "p.deb", entries)], into)
    assert ((into / "d/one").read_text(), (into / "d/two").read_text()) == ("new", "same")


def hard_linked(name: str, data: bytes) -> bytes:
    """An entry of a cpio archive with three names: in such an archive the last one has the content."""
    raw = name.encode() + b"\0"
    numbers = (7, 0o100644, 0, 0, 3, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def test_hard_links_of_rpm(into: Path, tmp_path: Path) -> None:
    whole = hard_linked("a", b"") + hard_linked("b", b"") + hard_linked("c", b"content")
    packagefile.unpack_here([rpm(tmp_path / "p.rpm", whole + payload([]))], into)
    assert [(into / name).read_text() for name in "abc"] == ["content"] * 3


HOSTILE: dict[str, list[Entry]] = {
    "absolute": [("/{out}/new", REGULAR, b"x")],
    "parent": [("a/../../../outside/new", REGULAR, b"x")],
    "parent at once": [("../outside/new", REGULAR, b"x")],
    "link and through it": [("l", SYMLINK, b"../../outside"), ("l/new", REGULAR, b"x")],
    "link that leads out": [("a/l", SYMLINK, b"../../../outside/precious")],
    "link by two steps": [
        ("a/b/c", SYMLINK, b"../.."),
        ("d", SYMLINK, b"a/b/c/../../outside"),
        ("d/n", SYMLINK, b"x"),
    ],
    "loop": [("a", SYMLINK, b"b/x"), ("b", SYMLINK, b"a/y"), ("a/n", SYMLINK, b"x"), ("e", FIFO, b"")],
    "too deep": [("a/" * 200 + "file", REGULAR, b"x")],
    "device": [("dev/null", DEVICE, b"")],
    "fifo": [("pipe", FIFO, b"")],
}


@pytest.mark.parametrize("kind", ["deb", "rpm"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_packages(name: str, kind: str, into: Path, tmp_path: Path) -> None:
    entries = [
        (path.replace("{out}", f"{tmp_path}/outside"[1:]), kind_, to) for path, kind_, to in HOSTILE[name]
    ]
    with pytest.raises(DamagedError, match=r"package p\.(deb|rpm) is (not safe|damaged)"):
        packagefile.unpack_here([make(tmp_path, kind, entries)], into)
    untouched(tmp_path)


def untouched(tmp_path: Path) -> None:
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["precious"]
    assert (tmp_path / "outside/precious").read_text() == "precious"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["into"]


@pytest.mark.parametrize("target", ["../../outside/precious", "{out}/precious", "nowhere"])
def test_hard_links_that_lead_out(target: str, into: Path, tmp_path: Path) -> None:
    target = target.replace("{out}", f"{tmp_path}/outside")
    package = deb(tmp_path / "p.deb", [("l", LINK, target.encode()), ("l", REGULAR, b"x")])
    with pytest.raises(DamagedError, match="not safe"):
        packagefile.unpack_here([package], into)
    untouched(tmp_path)


def test_a_link_of_an_earlier_package_is_not_written_through(into: Path, tmp_path: Path) -> None:
    one = deb(tmp_path / "1.deb", [("l", SYMLINK, b"/etc")])
    two = deb(tmp_path / "2.deb", [("l/new", REGULAR, b"x")])
    with pytest.raises(DamagedError):
        packagefile.unpack_here([one, two], into)


@pytest.mark.parametrize("kind", ["deb", "rpm"])
@pytest.mark.parametrize("cut", [0.02, 0.5, 0.9])
def test_truncated_packages(cut: float, kind: str, into: Path, tmp_path: Path) -> None:
    package = make(tmp_path, kind, [(f"f{number}", REGULAR, os.urandom(5000)) for number in range(40)])
    package.write_bytes(package.read_bytes()[: int(package.stat().st_size * cut)])
    with pytest.raises(DamagedError, match=r"p\.(deb|rpm) is damaged"):
        packagefile.unpack_here([package], into)


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_a_changed_byte(kind: str, into: Path, tmp_path: Path) -> None:
    package = make(tmp_path, kind, [("f", REGULAR, os.urandom(300_000))])
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.write_bytes(data)
    with pytest.raises(DamagedError, match="damaged"):
        packagefile.unpack_here([package], into)


@pytest.mark.parametrize("name", ["p.deb", "p.rpm"])
def test_what_is_no_package(name: str, into: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"neither of them" * 100)
    with pytest.raises(DamagedError, match="or no package"):
        packagefile.unpack_here([tmp_path / name], into)
    (tmp_path / name).write_bytes(ar({"debian-binary": b"2.0\n", "control.tar": tar([])}))
    with pytest.raises(DamagedError, match="or no package"):
        packagefile.unpack_here([tmp_path / name], into)


def test_the_errors_of_the_process_that_unpacks(into: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match="device") as caught:
        anyio.run(packagefile.unpack, [make(tmp_path, "deb", HOSTILE["device"])], into)
    assert caught.value.next_step
    (tmp_path / "p.zip").touch()
    with pytest.raises(UsageError, match="no package"):
        anyio.run(packagefile.unpack, [tmp_path / "p.zip"], into)
    with pytest.raises(QuizmatrixError, match="No such file"):
        anyio.run(packagefile.unpack, [tmp_path / "none.deb"], into)


def test_a_bomb_is_refused_before_it_is_read(into: Path, tmp_path: Path) -> None:
    """A file of a tar archive says that it has a tebibyte."""
    head = bytearray(tar([("big", REGULAR, b"")])[:512])
    head[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    bomb = ar({"debian-binary": b"2.0\n", "data.tar": bytes(head)})
    (tmp_path / "p.deb").write_bytes(bomb)
    with pytest.raises(DamagedError, match="more than 8 GiB"):
        packagefile.unpack_here([tmp_path / "p.deb"], into)
    assert not any(into.rglob("big"))


def test_too_many_files(into: Path, tmp_path: Path) -> None:
    package = deb(tmp_path / "p.deb", [(f"f{number}", REGULAR, b"") for number in range(9)])
    packagefile.unpack_here([package], into, max_entries=10)
    with pytest.raises(DamagedError, match="more than 9 files"):
        packagefile.unpack_here([package], into, max_entries=9)


def test_a_name_that_is_no_text(into: Path, tmp_path: Path) -> None:
    made = bytearray(tar([("xxxx", REGULAR, b"")]))
    made[0:4] = b"\xff\xfe\xfd\xfc"
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made[:512])
    (tmp_path / "p.deb").write_bytes(ar({"debian-binary": b"2.0\n", "data.tar": bytes(made)}))
    with pytest.raises(DamagedError, match="valid name"):
        packagefile.unpack_here([tmp_path / "p.deb"], into)


def test_the_parts_of_a_header(tmp_path: Path) -> None:
    """A real package's headers have a content."""
    package = rpm(tmp_path / "p.rpm", payload([("f", REGULAR, b"x")]))
    data = package.read_bytes()
    index = struct.pack(">IIII", 1000, 6, 0, 1)
    header = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, 5) + index + b"name\0"
    package.write_bytes(data[:112] + header + data[128:])
    (tmp_path / "into").mkdir()
    packagefile.unpack_here([package], tmp_path / "into")
    assert (tmp_path / "into/f").read_text() == "x"
