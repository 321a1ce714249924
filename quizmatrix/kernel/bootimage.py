"""Extracts the kernel from an x86 boot image (bzImage)."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

from quizmatrix.core.errors import DamagedError


class _Decompressor(Protocol):
    """The interface of the decompressor objects of all formats."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""

    def decompress(self, data: bytes, /) -> bytes:
        """Decompress up to the end of the stream; bytes after it are ignored."""


class _Uncompressed:
    """A payload that is not compressed."""

    eof = True

    def decompress(self, data: bytes, /) -> bytes:
        """Return the data unchanged."""
        return data


class _Lz4Legacy:
    """Blocks of at most 8 MiB, each after its compressed length (lz4_Frame_format.md, legacy frame)."""

    _BLOCK = 8 << 20

    def __init__(self) -> None:
        self.eof = False

    def decompress(self, data: bytes, /) -> bytes:
        """Decompress all blocks. The last four bytes are no block, but the uncompressed length."""
        import lz4.block  # type: ignore[import-untyped]

        blocks = []
        at = len(_LZ4_LEGACY)
        while at + 4 < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            blocks.append(lz4.block.decompress(data[at + 4 : at + 4 + length], uncompressed_size=self._BLOCK))
            at += 4 + length
        self.eof = at + 4 == len(data)
        return b"".join(blocks)


def _zstd() -> _Decompressor:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


_LZ4_LEGACY = b"\x02\x21\x4c\x18"

# The formats by the bytes that a payload begins with. Decompressor objects are used because they stop at the
# end of the stream: the kernel's build appends the uncompressed length in some formats.
_FORMATS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"\xfd7zXZ\0": lzma.LZMADecompressor,
    b"\x5d\0\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE),
    b"BZh": bz2.BZ2Decompressor,
    b"\x28\xb5\x2f\xfd": _zstd,
    _LZ4_LEGACY: _Lz4Legacy,
    b"\x7fELF": _Uncompressed,
}


def vmlinux(image: bytes) -> bytes:
    """The uncompressed ELF kernel in a bzImage, which QEMU enters through its PVH note.

    An `image` that is an ELF file already is returned unchanged. Since boot protocol 2.08 the setup header
    has the position of the payload (kernel document arch/x86/boot.rst: setup_sects, payload_offset,
    payload_length). Raises DamagedError where `image` is neither, or its payload is no ELF file.
    """
    if image.startswith(b"\x7fELF"):
        return image
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise DamagedError("the kernel image is not an x86 boot image", cause="no HdrS header")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    for magic, make in _FORMATS.items():
        if payload.startswith(magic):
            decompressor = make()
            try:
                elf = decompressor.decompress(payload)
            except Exception as error:  # each format raises its own errors
                raise DamagedError("the kernel image is damaged", cause=str(error)) from error
            if not decompressor.eof:
                raise DamagedError("the kernel image is damaged", cause="it is cut short")
            if elf.startswith(b"\x7fELF"):
                return elf
    raise DamagedError("the kernel image could not be unpacked", cause=f"its payload begins {payload[:6]!r}")
