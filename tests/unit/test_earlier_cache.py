"""A cache made by an earlier version (commit 1795248) can be used: nothing in it is made again.

What is in it: a toy kernel built from a folder and from an archive, a module and OpenZFS (toys as well) built
for it, the initramfs, the small image and a Debian image of four bytes. It was made in /tmp/oc/cache.
"""

import fcntl
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec
import pytest

import quizmatrix
from quizmatrix.build.module.module import Module
from quizmatrix.build.module.module import store_of as modules_of
from quizmatrix.build.parts import Installed
from quizmatrix.build.zfs.libraries import SYSROOTS
from quizmatrix.build.zfs.tree import ZfsTree
from quizmatrix.cli import run_command
from quizmatrix.core import paths, uses
from quizmatrix.core.store import Store
from quizmatrix.debian import apt
from quizmatrix.image import debian, initramfs, small
from quizmatrix.image.artifact import IMAGES
from quizmatrix.kernel import artifact, buildlayer
from quizmatrix.kernel.artifact import KERNELS, KernelReference
from quizmatrix.kernel.build import shared_build_folder
from quizmatrix.kernel.order import KernelOptions, Order
from quizmatrix.kernel.tree import SOURCE_TREES
from quizmatrix.model.arch import load_arch
from quizmatrix.runs.clearing import CACHE_FOLDERS

X86_64 = load_arch("x86_64")
MADE_IN = "/tmp/oc/cache"
KEY = "6.1.9-x86_64-dbdf330ec6b625f6"
OTHER = "6.1.9-x86_64-303a14e1cb61347f"
IMAGE = "debian-bookworm-x86_64-0123"
SMALL = "small-x86_64-0c87d3cd2fd0"
INITRAMFS = "e2e5ce925368dc35ef42208f"
MODULE = Module(path=Path("/tmp/oc/hello mod"))
ZFS = ZfsTree(path=Path("/tmp/oc/zfs"), version="2.2.2", newest_kernel=None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    cache.mkdir()
    with tarfile.open(Path(__file__).with_name("earlier-cache.tar.xz")) as packed:
        packed.extractall(cache, filter="tar")
    # The paths in the cache contain the folder where it was made.
    for path in (*cache.rglob("*.json"), *cache.rglob("*.cpio")):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace(MADE_IN, str(cache)))
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(cache))
    return cache


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """All files, with their mtimes."""
    found = ((path, path.lstat()) for path in folder.rglob("*") if "locks" not in path.parts)
    return {str(path): (now.st_ino, now.st_mtime_ns) for path, now in found}


def test_its_kernels_are_found_as_they_were_asked_for(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert KERNELS.stored() == [OTHER, KEY]
    references = list(artifact.references())
    assert {(reference.spec, reference.key) for reference in references} == {
        ("path:/tmp/oc/toy linux", KEY),
        ("tarball:/tmp/oc/toy.tar.gz", OTHER),
    }
    for reference in references:
        kernel = artifact.find(reference.spec, reference.arch, reference.recipe)
        assert kernel is not None
        assert kernel.record.key == reference.key
        kernel.check(thoroughly=True)
        assert (kernel.record.release, kernel.build_tree is None) == ("6.1.9-toy", True)
        assert kernel.folder == cache / "kernels" / reference.key
        assert artifact.find(reference.spec, reference.arch, "another") is None
    assert run_command(["kernel", "list"]) == 0
    said = capsys.readouterr().out
    assert f"{KEY}  path:/tmp/oc/toy linux" in said


def test_a_reference_is_written_where_it_was() -> None:
    before = {path: path.read_bytes() for path in (KERNELS.root / "refs").iterdir()}
    for content in before.values():
        old = msgspec.json.decode(content, type=KernelReference)
        artifact.write_reference(old.spec, old.arch, old.recipe, old.key)
    assert {path: path.read_bytes() for path in (KERNELS.root / "refs").iterdir()} == before


def test_its_images_are_found() -> None:
    assert IMAGES.stored() == [IMAGE]
    image = debian.find(X86_64, "bookworm")
    assert image is not None
    assert (image.key, image.installed, image.disk.read_bytes()) == (IMAGE, {"fio": "3.33"}, b"hsqs toy")
    assert debian.current_keys() == {IMAGE}
    small_image = small._load(SMALL)
    assert small_image is not None
    small_image.archive.write_bytes(b"damaged")
    assert small._load(SMALL) is None
    assert initramfs._is_whole(INITRAMFS)
    initramfs._INITRAMFS.path(INITRAMFS).write_bytes(b"damaged")
    assert not initramfs._is_whole(INITRAMFS)


def test_what_was_built_for_its_kernels_is_found(cache: Path) -> None:
    kernel = artifact.load(KEY)
    assert kernel is not None
    assert buildlayer.kernels() == [KEY]
    assert [reference.name for reference in buildlayer.references(KEY)] == [MODULE.mark, "zfs"]
    assert buildlayer.has_module(kernel, "hello")
    for part, store, built in (
        (KEY, modules_of(MODULE.mark), "6f16cead1e34c520"),
        (f"modules-{KEY}", ZFS.store, "38ce2828205b677c"),
        ("userland-x86_64-toy", ZFS.store, "d2799eb0af5a1128"),
    ):
        installed = Installed(part=part, store=store)
        assert installed.is_current(built)
        assert not installed.is_current("0" * 16)
        before = state(cache)
        reference = store.reference_of(part)
        content = reference.read_bytes()
        installed.replace(built)
        after = state(cache)
        assert reference.read_bytes() == content
        assert {path for path in after if after[path] != before.get(path)} <= {
            str(reference),
            str(reference.parent),
        }


def test_a_build_goes_on_in_the_folder_that_it_had() -> None:
    def work(place: str, options: KernelOptions) -> str:
        return shared_build_folder(Path(place), Order(arch=X86_64, options=options, tell=lambda _said: None))

    assert work("/tmp/oc/toy linux", KernelOptions()) == "toy_linux-x86_64-85adcdefb1e27427"
    special = KernelOptions(variant="kasan", config=("CONFIG_X=y",), clang=True)
    assert work("/x/linux tree", special) == "linux_tree-x86_64-7eb020b3fae35082"
    # A part of a kernel's recipe.
    assert repr(X86_64.facts.build).startswith("Build(")


@contextmanager
def locked_by_hand(lock: Path) -> Iterator[None]:
    """Hold a lock as an earlier version does."""
    lock.parent.mkdir(exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


LOCKS = [
    (KERNELS, KEY, f"kernel-{KEY}"),
    (IMAGES, IMAGE, f"image-{IMAGE}"),
    (small._SMALL, SMALL, SMALL),
    (buildlayer.store_of(KEY), KEY, f"build-layer-{KEY}"),
    (modules_of(MODULE.mark), KEY, f"module-{MODULE.mark}-{KEY}"),
    (ZFS.store, f"modules-{KEY}", f"zfs-{ZFS.mark}-modules-{KEY}"),
    (SYSROOTS, "x86_64-bookworm", "sysroot-x86_64-bookworm"),
    (SOURCE_TREES, "tarball-cff9152ed3f622b4", "tarball-cff9152ed3f622b4"),
    (apt._ROOTS, "bookworm-amd64", "apt-bookworm-amd64"),
    (apt._PACKAGES, "packages", "packages"),
]


@pytest.mark.parametrize(("store", "name", "lock"), LOCKS, ids=[lock for _, _, lock in LOCKS])
def test_an_earlier_version_that_makes_something_is_waited_for(
    store: Store, name: str, lock: str, cache: Path
) -> None:
    waited: list[str] = []

    async def make() -> None:
        async with store.locked(name, lambda: waited.append(name)):
            pass

    async def play() -> None:
        with anyio.move_on_after(0.1):
            await make()

    with locked_by_hand(cache / "locks" / f"{lock}.lock"):
        anyio.run(play)
    assert waited == [name]
    anyio.run(make)
    assert waited == [name]


@pytest.mark.parametrize("what", ["kernel", "image"])
def test_what_an_earlier_version_uses_is_not_removed(
    what: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = KEY if what == "kernel" else IMAGE
    folder = cache / f"{what}s" / key
    used = cache / "locks" / f"used-{paths.cache_name(folder)}.lock"
    assert used.name.startswith(f"used-{key}-")
    with locked_by_hand(used):
        assert run_command([what, "remove", key]) == 125
        assert f"the {what} {key} is in use: by process {os.getpid()}" in capsys.readouterr().err
        assert folder.is_dir()
    assert run_command([what, "remove", key]) == 0
    assert not folder.exists()
    assert not used.exists()


def test_who_holds_one_is_seen_by_an_earlier_version(cache: Path) -> None:
    async def hold() -> None:
        held = uses.Uses()
        assert await held.hold(cache / "kernels" / KEY)
        assert not await held.hold(cache / "kernels" / "6.1-none")
        lock = cache / "locks" / f"used-{paths.cache_name(cache / 'kernels' / KEY)}.lock"
        handle = os.open(lock, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.release()
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)

    anyio.run(hold)


def test_all_of_a_store_is_emptied_with_the_cache() -> None:
    folders = {store.folder.partition("/")[0] for store, _, _ in LOCKS}
    for path in Path(quizmatrix.__file__).parent.rglob("*.py"):
        folders |= set(re.findall(r'= Store\([^()]*?folder="([\w-]+)"', path.read_text()))
    assert {"kernels", "initramfs", "trees", "toolchains", "module-sources"} <= folders
    assert folders <= {*CACHE_FOLDERS}
