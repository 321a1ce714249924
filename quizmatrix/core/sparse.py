"""Files with holes, such as the memory of a guest: only their data is read and copied."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# Bytes that are read at once.
_PIECE = 1 << 18


def data_of(file: int) -> Iterator[tuple[int, int]]:
    """Where an open file has data: the beginning and the end of each part. Raises OSError."""
    at, size = 0, os.fstat(file).st_size
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # there is only a hole left
        end = os.lseek(file, at, os.SEEK_HOLE)
        yield at, end
        at = end


def copy(source: int, target: Path) -> None:
    """Copy an open file to a new one, without its holes. Raises OSError.

    sendfile(2): copy_file_range(2) does not copy from one file system to another.
    """
    with target.open("xb") as file:
        file.truncate(os.fstat(source).st_size)
        for start, end in data_of(source):
            os.lseek(file.fileno(), start, os.SEEK_SET)
            at = start
            while at < end:
                at += os.sendfile(file.fileno(), source, at, end - at)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's size and of its data with the places of that, in hexadecimal."""
    with path.open("rb") as file:
        found = hashlib.sha256(str(os.fstat(file.fileno()).st_size).encode())
        # In the same pieces whatever a file system says of holes: it may find others later.
        done = 0
        for start, end in data_of(file.fileno()):
            for at in range(max(done, start - start % _PIECE), end, _PIECE):
                piece = os.pread(file.fileno(), _PIECE, at)
                # A part of zeros is the same as a hole, which a file system may make of it.
                if piece.strip(b"\0"):
                    found.update(f" {at} ".encode() + piece)
                done = at + _PIECE
        return found.hexdigest()
