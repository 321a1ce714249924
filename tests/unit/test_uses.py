"""No command removes artifacts that are in use; with real processes and locks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from quizmatrix.build import parts
from quizmatrix.build.module.module import store_of
from quizmatrix.cli import run_command
from quizmatrix.core import paths, uses
from quizmatrix.core.errors import HostError
from quizmatrix.image.artifact import IMAGES
from quizmatrix.kernel import artifact, buildlayer, source
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from quizmatrix.runs import directory
from quizmatrix.runs.history import database

HOLD = """
import sys, anyio
from pathlib import Path
from quizmatrix.core import uses

async def hold():
    held = uses.Uses()
    for artifact in sys.argv[1:]:
        print(await held.hold(Path(artifact)), flush=True)
    sys.stdin.read()

anyio.run(hold)
"""


@contextmanager
def held(*artifacts: Path, script: str = HOLD) -> Iterator[int]:
    """Another process uses these; returns its process id."""
    argv = [sys.executable, "-c", script, *map(str, artifacts)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in artifacts or [None]:
            assert other.stdout.readline() == b"True\n"
        yield other.pid
        other.stdin.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "state"))


def stored(key: str) -> Path:
    folder = artifact.KERNELS.path(key)
    folder.mkdir(parents=True)
    (folder / "image").write_bytes(b"a kernel")
    artifact.write_record(
        folder, artifact.KernelRecord(key=key, arch="x86_64", version="6.1", release="6.1", packages=[])
    )
    return folder


def locks() -> list[str]:
    return sorted(path.name for path in (paths.cache_dir() / "locks").glob("*"))


def test_a_kernel_in_use_is_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    used, free = stored("6.1-used"), stored("6.1-free")
    with held(used) as pid:
        # All named kernels are removed, or none.
        assert run_command(["kernel", "remove", "6.1-free", "6.1-used"]) == 125
        said = capsys.readouterr().err
        assert "the kernel 6.1-used is in use: by process" in said
        assert f"process {pid} (" in said
        assert ", since 20" in said
        assert used.is_dir()
        assert free.is_dir()
        # Of the unused kernels, all others are removed.
        assert run_command(["kernel", "remove", "--unused"]) == 0
        assert f"kept 6.1-used: in use by process {pid}" in capsys.readouterr().out
        assert used.is_dir()
        assert not free.exists()
        with pytest.raises(HostError, match="in use"):
            artifact.KERNELS.remove("6.1-used")
    assert run_command(["kernel", "remove", "6.1-used"]) == 0
    assert not used.exists()
    assert not [name for name in locks() if name.startswith("used-")]


def test_an_image_in_use_is_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    folder = IMAGES.root / "debian-x"
    (IMAGES.root / "refs").mkdir(parents=True)
    folder.mkdir()
    (folder / "image.json").write_text("{}")
    with held(folder) as pid:
        assert run_command(["image", "remove", "debian-x"]) == 125
        assert f"the image debian-x is in use: by process {pid}" in capsys.readouterr().err
    assert folder.is_dir()
    assert run_command(["image", "remove", "debian-x"]) == 0
    assert not folder.exists()


def test_a_cache_in_use_is_not_emptied(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = stored("6.1-x")
    script = (
        "import sys; from quizmatrix.core import uses\n"
        "with uses.using_cache(print): print(True, flush=True); sys.stdin.read()"
    )
    for artifacts, by in (([kernel], HOLD), ([], script)):
        with held(*artifacts, script=by) as pid:
            assert run_command(["clean"]) == 125
            said = capsys.readouterr()
            assert f"the cache {paths.cache_dir()} is in use: by process {pid}" in said.err
            assert said.out == ""
            assert kernel.is_dir()
            assert run_command(["clean", "--dry-run"]) == 0
            capsys.readouterr()
    assert run_command(["clean"]) == 0
    assert list(paths.cache_dir().iterdir()) == []


def test_a_run_that_is_going_on_is_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    going = directory.create(None, ["true"])
    kernel = stored("6.1-x")
    assert run_command(["clean", "--runs"]) == 125
    said = capsys.readouterr().err
    assert f"the run {going.folder.name} is still going on: by process {os.getpid()} (this one)" in said
    assert kernel.is_dir()
    going.finish([], 0)
    with database.connected():
        pass
    assert run_command(["clean", "--runs"]) == 0
    assert list(paths.state_dir().iterdir()) == []


def test_a_build_layer_that_a_guest_has_stays_however_old() -> None:
    stored("6.1-x")
    kernel = artifact.load("6.1-x")
    assert kernel is not None

    async def obtain() -> None:
        await buildlayer.obtain(kernel, with_runtime=False)

    folder = paths.cache_dir() / "build-layers" / kernel.record.key
    old = [folder / f"joined-{number}" for number in range(4)]
    for number, path in enumerate(old):
        path.mkdir(parents=True)
        os.utime(path, (1000 + number, 1000 + number))
    with held(old[1]):
        anyio.run(obtain)
        assert [path.exists() for path in old] == [False, True, True, True]
    anyio.run(obtain)
    assert [path.exists() for path in old] == [False, False, True, True]


def test_a_part_that_is_being_joined_stays_however_old() -> None:
    installed = parts.Installed(part="p", store=store_of("x"))
    layers = [installed.layer(f"{number:016d}") for number in range(4)]
    for layer in layers:
        layer.mkdir(parents=True)
        os.utime(layer, (1000, 1000))
    with held(layers[0]):
        installed.replace(f"{3:016d}")
        assert [layer.exists() for layer in layers] == [True, False, False, True]


def test_a_kernel_that_lost_its_build_tree_is_not_taken_from_its_guests(toy: Path) -> None:
    async def make() -> artifact.Kernel:
        order = Order(arch=load_arch("x86_64"), tell=lambda _said: None, needs_tree=True)
        return await source.obtain(f"path:{toy}", order)

    kernel = anyio.run(make)
    inode = kernel.folder.stat().st_ino
    assert kernel.build_tree is not None
    (kernel.build_tree.folder / artifact.BUILD_STAMP).unlink()
    with held(kernel.folder):
        again = anyio.run(make)
    assert again.build_tree is not None
    assert again.folder.stat().st_ino == inode
    # If the kernel itself has to be replaced, the error names the process that uses it.
    (kernel.folder / "image").write_bytes(b"damaged")
    with held(kernel.folder), pytest.raises(HostError, match="in use: by process"):
        anyio.run(make)


USE_OR_REMOVE = """
import contextlib, os, random, shutil, sys, time, anyio
from pathlib import Path
from quizmatrix.core import uses
from quizmatrix.core.errors import HostError

artifact = Path(sys.argv[1])

async def use():
    held = uses.Uses()
    # Without exist_ok: mkdir(exist_ok=True) raises if the folder is removed while it checks.
    with contextlib.suppress(FileExistsError):
        artifact.mkdir()
    if await held.hold(artifact):
        for _ in range(random.randrange(20)):
            assert artifact.is_dir(), "removed under us"
            time.sleep(0.0005)
    held.release()

for _ in range(150):
    if random.random() < 0.5:
        anyio.run(use)
    else:
        with uses.unused(artifact) as is_ours:
            if is_ours:
                shutil.rmtree(artifact, ignore_errors=True)
print("well")
"""


def test_nobody_loses_what_they_hold_whoever_comes_and_goes() -> None:
    """The lock's file is removed and made again all the time; a lock on a removed file must not count."""
    target = paths.cache_dir() / "x"
    paths.cache_dir().mkdir()
    argv = [sys.executable, "-c", USE_OR_REMOVE, str(target)]
    several = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(6)]
    assert [one.communicate()[0] for one in several] == [b"well\n"] * 6


def test_a_lock_whose_file_is_removed_is_waited_for_anew(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = paths.open_locked(lock)
    assert first is not None
    order: list[str] = []

    async def wait(name: str) -> None:
        async with paths.locked(lock):
            order.append(f"{name} in")
            await anyio.sleep(0.3)
            order.append(f"{name} out")

    async def play() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait, "a")
            await anyio.sleep(0.05)
            lock.unlink()
            first.close()
            group.start_soon(wait, "b")

    anyio.run(play)
    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])


def test_a_lock_that_cannot_be_made_is_no_use() -> None:
    paths.cache_dir().mkdir()
    (paths.cache_dir() / "locks").write_text("in the way")
    artifact = paths.cache_dir() / "x"
    artifact.mkdir()
    with pytest.raises(HostError, match="lock the x") as caught, uses.removing(artifact, "the x"):
        pass
    assert "in use" not in str(caught.value)
    with uses.unused(artifact) as is_ours:
        assert not is_ours
