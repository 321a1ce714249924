"""Kernels that other hosts have built: when they are asked for, and how they are stored here."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from quizmatrix.core.errors import DamagedError
from quizmatrix.hosts import builtthere
from quizmatrix.hosts.packing import pack_folder
from quizmatrix.kernel import artifact, source
from quizmatrix.kernel.artifact import KernelRecord
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch

KEY = "6.1.9-s390x-abc"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def packed_kernel(folder: Path, key: str = KEY) -> Path:
    """A kernel as a worker sends it."""
    made = folder / "made"
    modules = made / artifact.LAYER / "usr/lib/modules/6.1.9"
    modules.mkdir(parents=True)
    (made / artifact.LAYER / "lib").symlink_to("usr/lib")
    (modules / "a.ko").write_text("module")
    (made / artifact.IMAGE).write_text("image")
    (made / artifact.CONFIG).write_text("CONFIG_X=y\n")
    record = KernelRecord(key=key, arch="s390x", version="6.1.9", release="6.1.9", packages=[])
    artifact.write_record(made, record)
    packed = folder / "packed"
    anyio.run(pack_folder, made, packed)
    return packed


def test_a_kernel_arrives_whole(tmp_path: Path) -> None:
    packed = packed_kernel(tmp_path)
    said: list[str] = []
    anyio.run(builtthere.store, KEY, packed, said.append)
    kernel = artifact.load(KEY)
    assert kernel is not None
    kernel.check(thoroughly=True)
    assert (kernel.layer / "lib/modules/6.1.9/a.ko").read_text() == "module"
    # It is there: the next one is not unpacked.
    packed.write_bytes(b"")
    anyio.run(builtthere.store, KEY, packed, said.append)


def test_what_is_no_kernel_is_not_stored(tmp_path: Path) -> None:
    packed = packed_kernel(tmp_path)
    for key in ("../x", ".x", "a/b", ""):
        with pytest.raises(DamagedError, match="another host has built a kernel"):
            anyio.run(builtthere.store, key, packed, print)
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(DamagedError, match="cannot be read"):
        anyio.run(builtthere.store, KEY, packed, print)
    assert artifact.KERNELS.stored() == []


@pytest.mark.parametrize(
    ("kernel", "is_asked_for"), [("debian-source:6.1", True), ("kernel.org:6.1.9", True), ("path:/x", False)]
)
def test_which_kernels_are_built_elsewhere(kernel: str, is_asked_for: bool, tmp_path: Path) -> None:
    asked: list[str] = []
    packed = packed_kernel(tmp_path)

    async def elsewhere(name: str, order: Order) -> str:
        asked.append(f"{name} for {order.arch.name}")
        await builtthere.store(KEY, packed, order.tell)
        return KEY

    order = Order(arch=load_arch("s390x"), tell=print, elsewhere=elsewhere)
    if not is_asked_for:
        with pytest.raises(Exception, match="/x"):
            anyio.run(source.obtain, kernel, order)
        assert asked == []
        return
    found = anyio.run(source.obtain, kernel, order)
    assert asked == [f"{kernel} for s390x"]
    assert found.record.key == KEY
    # From now on it is known here by its name.
    assert anyio.run(source.obtain, kernel, order).record.key == KEY
    assert len(asked) == 1
