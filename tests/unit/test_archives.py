"""The parts of an initramfs: cpio archives, modules in loading order, the kernel in a boot image."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core import cpio
from quizmatrix.core.errors import DamagedError
from quizmatrix.kernel import bootimage
from quizmatrix.kernel.modules import boot_archive, decompress, loading_order, module_name


def members(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of every entry of a newc archive, read as its format says."""
    found = []
    at = 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = (at + 110 + name_size + 3) // 4 * 4
        found.append((name[:-1].decode(), mode, archive[start : start + size]))
        at = (start + size + 3) // 4 * 4
    return found


@given(st.binary(max_size=50), st.text("abc/", min_size=1, max_size=9))
def test_archives_hold_what_was_put_in(data: bytes, name: str) -> None:
    parts = [
        cpio.directory("d", 0o1777),
        cpio.file(name, data, 0o755),
        cpio.symlink("l", "d"),
        cpio.char_device("c", 5, 1),
    ]
    assert members(cpio.join(parts)) == [
        ("d", 0o041777, b""),
        (name, 0o100755, data),
        ("l", 0o120777, b"d"),
        ("c", 0o020600, b""),
        ("TRAILER!!!", 0, b""),
    ]


@st.composite
def dependencies(draw: st.DrawFn) -> dict[str, list[str]]:
    """Modules that need some of the modules before them; each lists all it needs, the first to load last."""
    needs: dict[str, list[str]] = {}
    for number in range(draw(st.integers(1, 8))):
        name = f"kernel/m{number}.ko"
        direct = draw(st.lists(st.sampled_from(sorted(needs)), unique=True)) if needs else []
        every = {inner for one in direct for inner in [one, *needs[one]]}
        needs[name] = sorted(every, reverse=True)
    return needs


@given(dependencies(), st.data())
def test_what_is_needed_is_loaded_first(needs: dict[str, list[str]], data: st.DataObject) -> None:
    text = "".join(f"{name}: {' '.join(inner)}\n" for name, inner in needs.items())
    wanted = data.draw(st.lists(st.sampled_from(sorted(needs))))
    order = loading_order(text, [module_name(name) for name in wanted])
    assert len(set(order)) == len(order)
    assert set(order) == {inner for name in wanted for inner in [name, *needs[name]]}
    for name in order:
        assert all(order.index(inner) < order.index(name) for inner in needs[name])


def test_a_module_that_is_built_in_is_left_out() -> None:
    assert loading_order("kernel/fs/9p/9p.ko.xz:\n", ["virtio_console", "9p"]) == ["kernel/fs/9p/9p.ko.xz"]


def test_names_are_compared_as_modprobe_does() -> None:
    assert module_name("kernel/net/9p/9pnet-virtio.ko.zst") == "9pnet_virtio"
    assert loading_order("a/9pnet-virtio.ko:\n", ["9pnet_virtio"]) == ["a/9pnet-virtio.ko"]


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "m.ko": lambda data: data,
    "m.ko.xz": lzma.compress,
    "m.ko.gz": gzip.compress,
    "m.ko.zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("name", PACKED)
def test_modules_are_unpacked(name: str) -> None:
    data = b"\x7fELF" + b"module" * 1000
    assert decompress(name, PACKED[name](data)) == data


@pytest.mark.parametrize("name", ["m.ko.xz", "m.ko.gz", "m.ko.zst"])
def test_a_damaged_module_is_named(name: str) -> None:
    with pytest.raises(DamagedError, match=r"m\.ko"):
        decompress(name, b"not packed at all")


def test_the_boot_archive_is_numbered_in_loading_order(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("b.ko.xz: a.ko\na.ko:\n")
    (tmp_path / "a.ko").write_bytes(b"A")
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"B"))
    found = members(boot_archive(tmp_path, ["b"]))
    assert [(name, data) for name, _, data in found] == [
        ("modules", b""),
        ("modules/00-a.ko", b"A"),
        ("modules/01-b.ko", b"B"),
    ]


KERNEL = b"\x7fELF" + bytes(range(256)) * 40


def boot_image(payload: bytes, *, setup_sectors: int = 3, behind: bytes = b"") -> bytes:
    """A bzImage as in arch/x86/boot.rst, with only the header fields that locate the payload."""
    head = bytearray((setup_sectors + 1) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 64, len(payload) + len(behind))
    return bytes(head) + bytes(64) + payload + behind


def lz4_legacy(data: bytes) -> bytes:
    """The data compressed as by `lz4 -l`, in two blocks."""
    blocks = [lz4.block.compress(part, store_size=False) for part in (data[:100], data[100:])]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
        lambda data: zstandard.ZstdCompressor().compress(data),
        lz4_legacy,
        lambda data: data,
    ],
    ids=["gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "none"],
)
def test_the_kernel_comes_out_of_a_boot_image(pack: Callable[[bytes], bytes]) -> None:
    length = struct.pack("<I", len(KERNEL))
    found = bootimage.vmlinux(boot_image(pack(KERNEL), behind=length))
    assert found[: len(KERNEL)] == KERNEL


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"no kernel" * 1000,
        boot_image(b"unknown packing"),
        boot_image(gzip.compress(b"no kernel" * 100)),
        boot_image(gzip.compress(KERNEL)[:-60]),
        boot_image(lz4_legacy(KERNEL)[:-60]),
        boot_image(b"\x1f\x8b rubbish" * 9),
    ],
    ids=["empty", "no image", "unknown", "no ELF", "cut short", "lz4 cut short", "damaged"],
)
def test_what_is_no_boot_image(image: bytes) -> None:
    with pytest.raises(DamagedError, match="kernel image"):
        bootimage.vmlinux(image)
