"""Folders that travel to other hosts: what is sent, what arrives, and what is refused."""

import io
import os
import stat
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from quizmatrix.core import uses
from quizmatrix.core.errors import DamagedError, HostError, UsageError
from quizmatrix.hosts import blobs, incoming, outgoing, worktree
from quizmatrix.hosts.trees import Left, Listing, TreeEntry, entries_of, read_digest, unpack, write_pack

Named = dict[str, bytes | str | None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    blobs.prepare()
    return tmp_path / "cache"


def write(folder: Path, files: Named) -> Path:
    """Make a folder with these files; text is the target of a symlink, None an empty folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return folder


def seen(folder: Path) -> dict[str, object]:
    """All that can be seen of a folder, but the mtimes of symlinks."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (
            facts.st_mode,
            None if path.is_symlink() else facts.st_mtime_ns,
            content,
        )
    return found


class Elsewhere:
    """Another host, which fetches from the first one's blobs."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._from = blobs.BLOBS.root
        self.fetched: list[int] = []
        self.told: list[str] = []
        monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(cache.with_name("elsewhere")))

    async def fetch(self, digest: str, target: Path) -> None:
        data = (self._from / digest).read_bytes()
        self.fetched.append(len(data))
        target.write_bytes(data)

    async def _has(self, digest: str) -> None:
        self.told.append(digest)

    def folder(self, digest: str, fetch: Callable[[str, Path], Awaitable[None]] | None = None) -> Path:
        async def make() -> Path:
            sources = incoming.Sources([fetch or self.fetch], self._has)
            return await incoming.folder_of(digest, sources, uses.Uses())

        return anyio.run(make)


TREE: Named = {
    "a": b"one",
    "b/c": b"two",
    "b/same as a": b"one",
    "b/empty": b"",
    "none": None,
    "link": "b/c",
    "dangling": "/nowhere/at all",
    os.fsdecode(b"odd \xff\n name"): b"\x00\xff" * 1000,
}


def test_a_folder_arrives_as_it_was(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "folder", TREE)
    (folder / "a").chmod(0o4755)
    (folder / "b/c").chmod(0o400)
    os.utime(folder / "b/c", ns=(5, 1_234_567_890_123_456_789))
    (folder / "none").chmod(0o711)
    os.utime(folder / "b", ns=(5, 1_000_000_000))
    os.mkfifo(folder / "a fifo")
    digest = outgoing.offer(folder)
    (folder / "a fifo").unlink()
    elsewhere = Elsewhere(cache, monkeypatch)
    made = elsewhere.folder(digest)
    assert seen(made) == seen(folder)
    assert len(elsewhere.fetched) == 2
    # Nothing travels twice, and a cache that others may read shows nothing of it.
    assert elsewhere.folder(digest) == made
    assert len(elsewhere.fetched) == 2
    assert stat.S_IMODE((tmp_path / "elsewhere/travel").stat().st_mode) == 0o700


def test_a_single_file_arrives_as_one(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").write_bytes(b"kernel")
    (tmp_path / "image").chmod(0o600)
    digest = outgoing.offer(tmp_path / "image")
    made = Elsewhere(cache, monkeypatch).folder(digest)
    assert (made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (b"kernel", 0o600)


def test_a_change_sends_only_itself(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random: Named = {f"{number}": os.urandom(10_000) for number in range(100)}
    folder = write(tmp_path / "folder", random)
    first = outgoing.offer(folder)
    assert outgoing.offer(folder) == first
    (folder / "7").write_bytes(b"new")
    (folder / "8").unlink()
    (folder / "9").rename(folder / "nine")
    second = outgoing.offer(folder)
    elsewhere = Elsewhere(cache, monkeypatch)
    elsewhere.folder(first)
    assert sum(elsewhere.fetched) > 900_000
    elsewhere.fetched.clear()
    made = elsewhere.folder(second)
    assert seen(made) == seen(folder)
    assert sum(elsewhere.fetched) < 20_000


def test_a_folder_that_changes_often_is_packed_anew(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", {"stays": b"s" * 100})
    packs = []
    for number in range(40):
        (folder / "changes").write_bytes(b"%d" % number)
        listing = Listing.decode(blobs.BLOBS.path(outgoing.offer(folder)).read_bytes())
        packs.append(len(listing.packs))
    assert max(packs) <= 16
    assert min(packs) == 1


def test_what_is_left_out_stays_at_home(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "folder", {"a": b"1", "big/x": b"2", "b/big/y": b"3"})
    digest = outgoing.offer(folder, Left(wanted=lambda path: path == "big"))
    assert sorted(seen(Elsewhere(cache, monkeypatch).folder(digest))) == ["a", "b", "b/big", "b/big/y"]


def test_a_file_that_is_written_meanwhile_is_read_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "folder", {"a": b"1" * 100, "b": b"2"})
    times = iter([b"3" * 100, b"4" * 50])

    def edit(path: str) -> bool:
        # Each look at the folder finds it changed after `a` was hashed.
        if path == "b" and (content := next(times, None)) is not None:
            (folder / "a").write_bytes(content)
        return False

    digest = outgoing.offer(folder, Left(wanted=edit))
    assert (Elsewhere(cache, monkeypatch).folder(digest) / "a").read_bytes() == b"4" * 50


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot make a copy of"):
        outgoing.offer(tmp_path / "none")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    files=st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e", "é"]), st.binary(max_size=50) | st.none())
)
def test_whatever_a_folder_has(files: Named, tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.mktemp("any")
    folder = write(top / "folder", files)
    entries = entries_of(folder)
    write_pack(folder, {one.content: one for one in entries if one.is_file}.values(), top / "pack")
    (top / "made").mkdir()
    unpack(Listing.decode(Listing(entries=entries).encode()), [top / "pack"], top / "made")
    assert seen(top / "made") == seen(folder)


FILE = TreeEntry(path="a", mode=0o100644, size=3, content="c" * 64)


@pytest.mark.parametrize(
    "entries",
    [
        [replace(FILE, path="../a")],
        [replace(FILE, path="/a")],
        [replace(FILE, path="b/../../a")],
        [replace(FILE, path="b//a")],
        [replace(FILE, path=".")],
        # A symlink that a file is to be written through.
        [TreeEntry(path="b", mode=0o120777, target=".."), replace(FILE, path="b/a")],
        [TreeEntry(path="b", mode=0o120777, target=".."), TreeEntry(path="b", mode=0o40755)],
        [TreeEntry(path="../b", mode=0o120777, target="x")],
        [TreeEntry(path="../b", mode=0o40755)],
    ],
)
def test_a_listing_that_leads_out(entries: list[TreeEntry], tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    (tmp_path / "source").write_bytes(b"abc")
    packed_into(pack, "c" * 64, b"abc")
    before = set(tmp_path.rglob("*"))
    (tmp_path / "made").mkdir()
    with pytest.raises((DamagedError, OSError)):
        unpack(Listing(entries=entries), [pack], tmp_path / "made")
    assert {path for path in tmp_path.rglob("*") if "made" not in path.parts} == before


def packed_into(pack: Path, name: str, content: bytes) -> None:
    """Write a pack with one member of this name."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    pack.write_bytes(zstandard.compress(plain.getvalue()))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-9], "cannot be read|another content"),
        (lambda data: b"x" + data, "another content"),
        (lambda data: b"", "another content"),
    ],
)
def test_what_is_damaged_on_the_way_is_asked_for_again(
    damage: Callable[[bytes], bytes], said: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "folder", TREE)
    digest = outgoing.offer(folder)
    elsewhere = Elsewhere(cache, monkeypatch)

    async def fetch(name: str, target: Path) -> None:
        await elsewhere.fetch(name, target)
        target.write_bytes(damage(target.read_bytes()))

    with pytest.raises(DamagedError, match=said):
        elsewhere.folder(digest, fetch)
    assert seen(elsewhere.folder(digest)) == seen(folder)


def test_a_pack_that_lies_about_a_content(tmp_path: Path) -> None:
    packed_into(tmp_path / "pack", "c" * 64, b"abc")
    (tmp_path / "made").mkdir()
    with pytest.raises(DamagedError, match="another content for 'a'"):
        unpack(Listing(entries=[FILE]), [tmp_path / "pack"], tmp_path / "made")
    with pytest.raises(DamagedError, match="lack the content of 'a'"):
        unpack(Listing(entries=[FILE]), [], tmp_path / "made")


@pytest.mark.parametrize("data", [b"", b"nonsense", zstandard.compress(b"{}"), zstandard.compress(b"[")])
def test_what_is_no_listing(data: bytes) -> None:
    with pytest.raises(DamagedError, match="listing of a folder cannot be read"):
        Listing.decode(data)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("newest", "older", "oldest")):
        folder = blobs.TREES.path(name)
        write(folder, {"x": os.urandom(600_000)})
        os.utime(folder, (1e9 - age, 1e9 - age))
    held = uses.Uses()
    anyio.run(held.hold, blobs.TREES.path("oldest"))
    monkeypatch.setenv(blobs.BUDGET_VARIABLE, "1M")
    blobs.keep_to_budget()
    assert sorted(path.name for path in blobs.TREES.root.iterdir()) == ["newest", "oldest"]
    held.release()
    blobs.keep_to_budget()
    assert [path.name for path in blobs.TREES.root.iterdir()] == ["newest"]
    monkeypatch.setenv(blobs.BUDGET_VARIABLE, "much")
    with pytest.raises(UsageError, match="QUIZMATRIX_TRAVEL=much"):
        blobs.keep_to_budget()


def test_what_the_user_may_not_read_stays_here(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", {"a": b"a", "of root/b": b"b", "z": b"z"})

    def digest(path: str, status: os.stat_result) -> str:
        # As the tests may run as root, who may read all.
        if path.endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return read_digest(path, status)

    left = Left()
    assert [entry.path for entry in entries_of(folder, digest, left)] == ["a", "of root", "z"]
    assert left.unreadable == ["of root/b"]
    assert worktree.unreadable_sentence(left.unreadable) == "of root/b stays here: you may not read it"


def test_holes_of_a_file_stay_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, made = tmp_path / "disk", tmp_path / "made"
    with disk.open("wb") as file:
        file.seek(40 << 20)
        file.write(b"end")
        file.truncate(64 << 20)
    listing = Listing.decode(blobs.BLOBS.path(outgoing.offer_once(disk)).read_bytes())
    unpack(listing, [blobs.BLOBS.path(pack) for pack in listing.packs], made)
    assert made.read_bytes() == disk.read_bytes()
    assert made.stat().st_blocks * 512 < 4 << 20
