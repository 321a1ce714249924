"""Decompresses data in memory, in all formats of kernels and modules, up to a limit.

The data may come from anybody.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator

# Bytes that a kernel or a module may have. The largest, with the symbols for a debugger, have half as much.
LIMIT = 1 << 30

# Bytes of memory that a decompressor may take.
_MEMORY = 512 << 20

# Bytes that are given to zstd at a time: it has no limit of its own, and makes up to 2^15 bytes of one.
_PIECE = 4096

_LZ4_LEGACY = b"\x02\x21\x4c\x18"


def _zlib(data: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    yield unpacker.decompress(data, LIMIT + 1)
    _check_end(unpacker.eof)


def _bzip2(data: bytes) -> Iterator[bytes]:
    unpacker = bz2.BZ2Decompressor()
    yield unpacker.decompress(data, LIMIT + 1)
    _check_end(unpacker.eof)


def _lzma(data: bytes) -> Iterator[bytes]:
    unpacker = lzma.LZMADecompressor(memlimit=_MEMORY)
    yield unpacker.decompress(data, LIMIT + 1)
    _check_end(unpacker.eof)


def _zstd(data: bytes) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_MEMORY).decompressobj()
    for at in range(0, len(data), _PIECE):
        yield unpacker.decompress(data[at : at + _PIECE])
        if unpacker.eof:
            return
    _check_end(False)


def _lz4_legacy(data: bytes) -> Iterator[bytes]:
    """Blocks of at most 8 MiB, each after its compressed length (lz4_Frame_format.md, legacy frame).

    The last four bytes are no block, but the uncompressed length.
    """
    import lz4.block  # type: ignore[import-untyped]

    at = len(_LZ4_LEGACY)
    while at + 4 < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield lz4.block.decompress(data[at + 4 : at + 4 + length], uncompressed_size=8 << 20)
        at += 4 + length
    _check_end(at + 4 == len(data))


def _check_end(is_whole: bool) -> None:
    if not is_whole:
        raise ValueError("it is cut short")


# The formats by the bytes that they begin with. All stop at the end of the stream: the kernel's build appends
# the uncompressed length in some formats.
_FORMATS: dict[bytes, Callable[[bytes], Iterator[bytes]]] = {
    b"\x1f\x8b": _zlib,
    b"\xfd7zXZ\0": _lzma,
    b"\x5d\0\0": _lzma,
    b"BZh": _bzip2,
    b"\x28\xb5\x2f\xfd": _zstd,
    _LZ4_LEGACY: _lz4_legacy,
}


def xz_head(data: bytes, size: int) -> bytes:
    """The beginning of what an xz file holds, of at most `size` bytes.

    Raises ValueError where it is damaged there, or cut short.
    """
    try:
        head = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY).decompress(data, size)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from error
    # The footer's magic bytes (The .xz File Format, 2.1.2.4).
    _check_end(data.endswith(b"YZ"))
    return head


def is_compressed(data: bytes) -> bool:
    """Whether the data begins like one of the formats."""
    return data.startswith(tuple(_FORMATS))


def decompress(data: bytes, limit: int = LIMIT) -> bytes:
    """The data, decompressed. limit: in bytes, at most LIMIT.

    Raises ValueError where it is damaged, cut short, in none of the formats, or larger than the limit.
    """
    unpack = next((unpack for magic, unpack in _FORMATS.items() if data.startswith(magic)), None)
    if unpack is None:
        raise ValueError(f"it begins {data[:6]!r}, as no compressed file does")
    pieces, size = [], 0
    try:
        for piece in unpack(data):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise ValueError(f"it unpacks to more than {limit >> 20} MiB")
    except ValueError:
        raise
    except Exception as error:  # each format raises its own errors
        raise ValueError(str(error)) from error
    return b"".join(pieces)
