"""Makes .deb and .rpm files by hand, hostile ones among them."""

import io
import struct
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

from quizmatrix.core import cpio

REGULAR, LINK, SYMLINK, DEVICE, FIFO, FOLDER = (
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
)

# A file of a package: its path, its type, and its content or where it leads.
Entry = tuple[str, bytes, bytes]


def tar(entries: Iterable[Entry]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o4755 if name.endswith(".sh") else 0o644
            if kind == REGULAR:
                member.size = len(content)
            else:
                member.linkname = content.decode()
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def ar(members: dict[str, bytes]) -> bytes:
    """An ar(1) archive (deb(5))."""
    made = b"!<arch>\n"
    for name, content in members.items():
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        made += content + b"\n" * (len(content) % 2)
    return made


def deb(path: Path, entries: Iterable[Entry]) -> Path:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(tar(entries))
    members = {"debian-binary": b"2.0\n", "control.tar": tar([]), "data.tar.zst": packed}
    path.write_bytes(ar(members))
    return path


def rpm(path: Path, payload: bytes) -> Path:
    """A package with two empty headers (rpm's document format_v4): libarchive passes over them."""
    header = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 0, 0)
    lead = b"\xed\xab\xee\xdb\x03\x00" + bytes(90)
    path.write_bytes(lead + header + header + zstandard.ZstdCompressor(write_checksum=True).compress(payload))
    return path


def payload(entries: Iterable[Entry]) -> bytes:
    """A cpio archive of regular files and symbolic links."""
    makers: dict[bytes, Callable[[str, bytes], bytes]] = {
        REGULAR: cpio.file,
        SYMLINK: lambda name, content: cpio.symlink(name, content.decode()),
        DEVICE: lambda name, _: cpio.char_device(name, 1, 3),
        FIFO: lambda name, _: cpio.fifo(name),
    }
    return cpio.join(makers[kind](name, content) for name, kind, content in entries)
