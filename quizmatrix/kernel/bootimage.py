"""The kernel inside an x86 boot image."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

from quizmatrix.errors import DamagedError


def _zstd(payload: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(payload)


# What the payload begins with. The decompressor objects stop at the end of the stream: the build
# appends the uncompressed length to some formats.
_FORMATS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda data: zlib.decompressobj(wbits=31).decompress(data),
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data),
    b"\x5d\0\0": lambda data: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data),
    b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\x7fELF": lambda data: data,
}


def vmlinux(image: bytes) -> bytes:
    """The uncompressed ELF kernel in a bzImage, which QEMU enters through its PVH note.

    The setup header gives the place of the payload since boot protocol 2.08 (kernel document
    arch/x86/boot.rst: setup_sects, payload_offset, payload_length). Raises DamagedError where
    `image` is no bzImage, or its payload is not an ELF file.
    """
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise DamagedError("the kernel image is not an x86 boot image", cause="no HdrS header")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    for magic, unpack in _FORMATS.items():
        if payload.startswith(magic):
            try:
                elf = unpack(payload)
            except Exception as error:
                raise DamagedError("the kernel image is damaged", cause=str(error)) from error
            if elf.startswith(b"\x7fELF"):
                return elf
    raise DamagedError("the kernel image could not be unpacked", cause=f"its payload begins {payload[:6]!r}")
