"""Kernel modules: runs depmod(8) for their index, and packs those that a guest boots with."""

from __future__ import annotations

import re
from pathlib import Path

from quizmatrix.core import cpio, process
from quizmatrix.core.errors import DamagedError

# The folder from which a guest's init1 loads modules; their names are numbered in loading order.
BOOT_MODULES = "modules"

# Bytes of memory that depmod may take.
_DEPMOD_MEMORY = 4 << 30

# The ends of the names of compressed modules.
COMPRESSED = (".xz", ".gz", ".zst")


async def index_modules(layer: Path, release: str) -> None:
    """Write modules.dep and the other index files for `layer`/usr/lib/modules/`release`, with depmod.

    The layer must have no /lib, which would hide the base image's symlink; depmod gets a temporary one.
    """
    argv = [process.require_program("depmod", "kmod"), "--basedir", str(layer), release]
    if (prlimit := process.find_program("prlimit")) is not None:
        # It decompresses modules, which may come from anybody, into memory: some need 100 MB, a bomb all.
        argv = [prlimit, f"--as={_DEPMOD_MEMORY}", *argv]
    link = layer / "lib"
    link.symlink_to("usr/lib")
    try:
        done = await process.run(argv)
    finally:
        link.unlink()
    if done.status != 0:
        raise DamagedError(f"the modules of {release} could not be indexed", cause=done.last_words)


def module_name(path: str) -> str:
    """`kernel/net/9p/9pnet-virtio.ko.xz` -> `9pnet_virtio`, as modprobe compares names."""
    return re.sub(r"\.ko(\.\w+)?$", "", path.rpartition("/")[2]).replace("-", "_")


def loading_order(modules_dep: str, wanted: list[str]) -> list[str]:
    """The module files to load, in order, for the modules in `wanted` and all that these need.

    modules_dep: the text of modules.dep (`PATH: NEEDED...`; what has to be loaded first is last). A wanted
    module that is not listed counts as built in.
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


def decompress(name: str, data: bytes) -> bytes:
    """Decompress a module file, in any format; busybox's insmod cannot decompress."""
    if not name.endswith(COMPRESSED):
        return data
    from quizmatrix.core import decompress  # imports lzma, which is slow to import

    try:
        return decompress.decompress(data)
    except ValueError as error:
        raise DamagedError(f"the module {name} is damaged", cause=str(error)) from error


def boot_archive(modules: Path, wanted: list[str]) -> bytes:
    """A cpio archive for the initramfs with the modules in `wanted`, uncompressed and numbered.

    modules: the folder with modules.dep.
    """
    parts = [cpio.directory(BOOT_MODULES)]
    order = loading_order((modules / "modules.dep").read_text(), wanted)
    for number, path in enumerate(order):
        data = decompress(path, (modules / path).read_bytes())
        parts.append(cpio.file(f"{BOOT_MODULES}/{number:02d}-{module_name(path)}.ko", data))
    return b"".join(parts)
