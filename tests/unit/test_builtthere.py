"""Kernels that other hosts have built: when they are asked for, and how they are stored here."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError
from quizmatrix.hosts import builtthere
from quizmatrix.hosts.packing import pack_folder
from quizmatrix.kernel import artifact, debiansource, source
from quizmatrix.kernel.artifact import KernelRecord
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch

KEY = "6.1.9-s390x-abc"
ORDER = Order(arch=load_arch("s390x"), tell=lambda _said: None)


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
    anyio.run(builtthere.store, KEY, packed, ORDER)
    kernel = artifact.load(KEY)
    assert kernel is not None
    kernel.check(thoroughly=True)
    assert (kernel.layer / "lib/modules/6.1.9/a.ko").read_text() == "module"
    # It is there: the next one is not unpacked.
    packed.write_bytes(b"")
    anyio.run(builtthere.store, KEY, packed, ORDER)


def test_what_is_no_kernel_is_not_stored(tmp_path: Path) -> None:
    packed = packed_kernel(tmp_path)
    for key in ("../x", ".x", "6/b", "", "refs"):
        with pytest.raises(DamagedError, match="another host has built a kernel"):
            anyio.run(builtthere.store, key, packed, ORDER)
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(DamagedError, match="cannot be read"):
        anyio.run(builtthere.store, KEY, packed, ORDER)
    assert artifact.KERNELS.stored() == []


def test_a_kernel_of_another_name_is_not_stored(tmp_path: Path) -> None:
    packed = packed_kernel(tmp_path, "6.2-other")
    with pytest.raises(DamagedError, match=r"has built 6\.2-other for s390x, not 6\.1\.9"):
        anyio.run(builtthere.store, KEY, packed, ORDER)
    assert artifact.KERNELS.stored() == []


def test_a_kernel_that_is_built_elsewhere_is_known_here(tmp_path: Path) -> None:
    packed = packed_kernel(tmp_path)
    asked: list[str] = []

    async def elsewhere(name: str, order: Order) -> str:
        asked.append(f"{name} for {order.arch.name}")
        await builtthere.store(KEY, packed, order)
        return KEY

    order = replace(ORDER, elsewhere=elsewhere)
    for _ in range(2):
        assert anyio.run(source.obtain, "debian-source:6.1", order).record.key == KEY
    assert asked == ["debian-source:6.1 for s390x"]


@pytest.mark.parametrize(
    ("kernel", "is_public"),
    [
        ("debian-source:6.1", True),
        ("kernel.org:6.1.9", True),
        ("6.1", False),
        ("git:https://x/linux#v6.1", True),
    ],
)
def test_which_kernels_other_hosts_can_build(kernel: str, is_public: bool) -> None:
    assert source.is_public(kernel) is is_public


def test_a_tree_of_ones_own_is_built_here(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    tree.mkdir()
    (tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 9\nEXTRAVERSION =\n")
    (tree / "Kconfig").write_text("")
    assert not source.is_public(f"path:{tree}")


def test_where_no_host_can_it_is_built_here(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def elsewhere(_name: str, _order: Order) -> str:
        raise HostError("zed: there is no s390x-linux-gnu-gcc")

    async def fetch(_wanted: str, _order: Order) -> str:
        raise UnpreparedError("it came here")

    monkeypatch.setattr(debiansource, "SOURCE", replace(debiansource.SOURCE, fetch=fetch))
    order = replace(ORDER, elsewhere=elsewhere, tell=said.append)
    with pytest.raises(UnpreparedError, match="it came here"):
        anyio.run(source.obtain, "debian-source:6.1", order)
    assert said == ["zed: there is no s390x-linux-gnu-gcc; building it here"]
