"""Kernel modules: runs depmod(8) for their index, and packs those that a guest boots with."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from quizmatrix.core import cpio, process
from quizmatrix.core.errors import DamagedError

# Where a guest's init1 finds what it loads, numbered in loading order.
BOOT_MODULES = "modules"


async def index_modules(layer: Path, release: str) -> None:
    """Write modules.dep and its like for `layer`/usr/lib/modules/`release`, with the host's depmod.

    The layer keeps /usr/lib only: a real /lib in it would hide the base image's link of that name.
    """
    depmod = process.require_program("depmod", "kmod")
    link = layer / "lib"
    link.symlink_to("usr/lib")
    try:
        done = await process.run([depmod, "--basedir", str(layer), release])
    finally:
        link.unlink()
    if done.status != 0:
        raise DamagedError(f"the modules of {release} could not be indexed", cause=done.last_words)


def module_name(path: str) -> str:
    """`kernel/net/9p/9pnet-virtio.ko.xz` -> `9pnet_virtio`, as modprobe compares names."""
    return re.sub(r"\.ko(\.\w+)?$", "", path.rpartition("/")[2]).replace("-", "_")


def loading_order(modules_dep: str, wanted: list[str]) -> list[str]:
    """The files to load, in order, so that `wanted` and all they need are there.

    modules_dep: the text of modules.dep (`PATH: NEEDED...`, the ones needed first standing last).
    A wanted module that is not listed is taken to be built in.
    """
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        by_name[module_name(path)] = path
    order: dict[str, None] = {}

    def load(path: str) -> None:
        for needed in reversed(needs.get(path, [])):
            order.setdefault(needed)
        order.setdefault(path)

    for name in wanted:
        if name.replace("-", "_") in by_name:
            load(by_name[name.replace("-", "_")])
    return list(order)


def _unpack_zstd(data: bytes) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor().decompressobj()
    try:
        unpacked = decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if not decompressor.eof:
        raise ValueError("it is cut short")
    return unpacked


def decompress(name: str, data: bytes) -> bytes:
    """The bytes of a module file, whatever it is compressed with (busybox's insmod knows none)."""
    import lzma  # slow to import

    try:
        if name.endswith(".xz"):
            return lzma.decompress(data)
        if name.endswith(".gz"):
            return zlib.decompress(data, wbits=31)
        if name.endswith(".zst"):
            return _unpack_zstd(data)
    except (lzma.LZMAError, zlib.error, ValueError) as error:
        raise DamagedError(f"the module {name} is damaged", cause=str(error)) from error
    return data


def boot_archive(modules: Path, wanted: list[str]) -> bytes:
    """The part of an initramfs that holds the modules in `wanted`, uncompressed and numbered.

    modules: the folder that holds modules.dep.
    """
    parts = [cpio.directory(BOOT_MODULES)]
    order = loading_order((modules / "modules.dep").read_text(), wanted)
    for number, path in enumerate(order):
        data = decompress(path, (modules / path).read_bytes())
        parts.append(cpio.file(f"{BOOT_MODULES}/{number:02d}-{module_name(path)}.ko", data))
    return b"".join(parts)
