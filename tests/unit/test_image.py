"""Debian images in the cache: their packages, which are in use, and damaged ones."""

from pathlib import Path

import anyio
import msgspec
import pytest

from quizmatrix.core.checksum import checksum_of
from quizmatrix.core.errors import DamagedError, UnpreparedError, UsageError
from quizmatrix.debian import apt
from quizmatrix.image import debian
from quizmatrix.image.artifact import IMAGES
from quizmatrix.image.dpkgprogress import DpkgProgress
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits
from quizmatrix.prepare.preparer import Policy, Preparer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path / "config"))


def stored(key: str, arch: str = "s390x", suite: str = "bookworm") -> Path:
    """Store an image as `build` does; returns its disk."""
    folder = IMAGES.path(key)
    folder.mkdir(parents=True)
    disk = folder / "root.squashfs"
    disk.write_bytes(b"hsqs")
    image = debian.DebianImage(
        key=key, arch=arch, suite=suite, include=["fio"], installed={"fio": "3"}, checksum=checksum_of(disk)
    )
    (folder / "image.json").write_bytes(msgspec.json.encode(image))
    IMAGES.write_reference(debian._name_of(arch, suite), key.encode())
    return disk


def test_sets_of_packages() -> None:
    sets = debian.package_sets()
    assert debian.expand([]) == sorted(sets["base"])
    more = debian.expand(["zfs-tests", "nano", "fio"])
    assert {"ksh", "nano", "python3"} <= set(more)
    assert len(more) == len(set(more))
    for wrong in ("", "-x", "a b", "../x", "?essential", "Fio"):
        with pytest.raises(UsageError, match="is no package"):
            debian.expand([wrong])


def test_suites() -> None:
    assert debian.choose_suite(load_arch("s390x"), None) == "bookworm"
    assert debian.choose_suite(load_arch("s390x"), "sid") == "sid"
    with pytest.raises(UsageError, match="unknown suite"):
        debian.choose_suite(load_arch("s390x"), "woody")
    with pytest.raises(UnpreparedError, match="bullseye does not carry s390x"):
        debian.choose_suite(load_arch("s390x"), "bullseye")
    with pytest.raises(UnpreparedError, match="does not carry ppc64"):
        debian.choose_suite(load_arch("ppc64"), None)


def test_the_image_in_use() -> None:
    arch = load_arch("s390x")
    assert debian.find(arch, "bookworm") is None
    stored("debian-bookworm-s390x-1")
    stored("debian-bookworm-s390x-2")
    image = debian.find(arch, "bookworm")
    assert image is not None
    assert image.key == "debian-bookworm-s390x-2"
    assert IMAGES.stored() == ["debian-bookworm-s390x-1", "debian-bookworm-s390x-2"]
    assert debian.current_keys() == {"debian-bookworm-s390x-2"}
    IMAGES.remove("debian-bookworm-s390x-2")
    assert debian.find(arch, "bookworm") is None
    assert IMAGES.stored() == ["debian-bookworm-s390x-1"]


def test_an_image_that_lacks_what_it_has_to_have() -> None:
    stored("debian-bookworm-s390x-1")
    image = debian.find(load_arch("s390x"), "bookworm")
    assert image is not None
    assert debian.lacks(image, ["fio", "zfs-tests", "nano"]) == ["zfs-tests", "nano"]
    whole = msgspec.structs.replace(image, installed=dict.fromkeys(debian.package_sets()["zfs-tests"], "1"))
    assert debian.lacks(whole, ["fio", "zfs-tests"]) == []
    # A set that has grown since; a package that its suite has under another name.
    old = msgspec.structs.replace(image, include=["zfs-tests"], expanded=debian.expand(["zfs-tests"])[1:])
    assert debian.lacks(old, ["zfs-tests"]) == ["zfs-tests"]
    renamed = msgspec.structs.replace(image, include=["zfs-tests"], expanded=debian.expand(["zfs-tests"]))
    assert debian.lacks(renamed, ["zfs-tests"]) == []
    (plain,) = cells_on_the_spot(["6.1-s390x"], Limits(image="debian"))
    cell = msgspec.structs.replace(plain, include=("zfs-tests",))
    with pytest.raises(
        UnpreparedError, match="image for s390x has no zfs-tests: --offline forbids"
    ) as caught:
        anyio.run(Preparer(Policy(offline=True)).prepare, cell, print)
    assert caught.value.next_step.endswith(": quizmatrix image build --arch s390x --include zfs-tests")


def test_a_damaged_image_is_named() -> None:
    stored("debian-bookworm-s390x-1").write_bytes(b"hs")
    with pytest.raises(DamagedError) as caught:
        debian.find(load_arch("s390x"), "bookworm")
    assert caught.value.next_step == "quizmatrix image remove debian-bookworm-s390x-1"


def test_file_names_of_packages() -> None:
    package = apt.Package(name="libgmp10", version="2:6.2.1+dfsg1-1.1", sha256="", size=1, depends="")
    assert apt._file_name(package, "s390x") == "libgmp10_2%3a6.2.1+dfsg1-1.1_s390x.deb"


def test_how_far_dpkg_has_come() -> None:
    said: list[str] = []
    progress = DpkgProgress(20, said.append)
    output = "".join(
        f"Selecting previously unselected package p{number}.\nUnpacking p{number} (1.{number}-2) ...\n"
        for number in range(20)
    )
    output += "".join(f"Setting up p{number} (1.{number}-2) ...\nSetting up keys\n" for number in range(20))

    async def read() -> None:
        # Pieces end anywhere.
        for start in range(0, len(output), 7):
            await progress.read(output[start : start + 7].encode())

    anyio.run(read)
    assert len(said) == 10
    assert said[0] == "4 of 20 packages unpacked, 0 configured"
    assert said[-1] == "20 of 20 packages unpacked, 20 configured"
