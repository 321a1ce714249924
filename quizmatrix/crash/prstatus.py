"""Reads the registers of a guest's CPUs in QEMU's file, where drgn does not find them.

QEMU writes a file for kdump "flattened" (makedumpfile(8), -F): in pieces, each with its place. The second
block of the whole says where the notes are, one of kind NT_PRSTATUS for each CPU (elf(5)), in the CPUs' order
(include/sysemu/dump.h of QEMU: DiskDumpHeader64, KdumpSubHeader64).
"""

from __future__ import annotations

import struct
from pathlib import Path

import drgn

from quizmatrix.crash.memory import KeptMemory

_FLATTENED, _KDUMP = b"makedumpfile\0", b"KDUMP   "
# Bytes of the header of a flattened file; each piece begins with its place and size.
_HEADER, _PIECE = 4096, struct.Struct(">qq")
# The notes are in the first pieces.
_MOST_PIECES, _MOST_BYTES = 100, 16 << 20
# In the header the size of a block; in the block after it, the place and size of the notes.
_AT_BLOCK_SIZE, _AT_NOTES = 428, 48
_PRSTATUS = 1


def registers(program: drgn.Program, memory: KeptMemory) -> list[drgn.Object]:
    """The registers of each CPU as `struct pt_regs`; none where the architecture's file does not say how.

    program: with the kernel's types.
    """
    if memory.registers is None:
        return []
    kind = program.type("struct pt_regs")
    place = memory.registers
    made = []
    for note in notes(Path(memory.core), is_little_endian=memory.is_little_endian):
        found = note[place.in_note : place.in_note + place.size]
        made.append(
            drgn.Object.from_bytes_(program, kind, (bytes(place.in_pt_regs) + found).ljust(kind.size, b"\0"))
        )
    return made


def notes(file: Path, *, is_little_endian: bool) -> list[bytes]:
    """The notes of the CPUs, in their order; none where the file has another format."""
    whole = _beginning(file)
    order = "<" if is_little_endian else ">"
    try:
        (block,) = struct.unpack_from(f"{order}I", whole, _AT_BLOCK_SIZE)
        at, size = struct.unpack_from(f"{order}QQ", whole, block + _AT_NOTES)
        return list(_cpus(whole[at : at + size], order))
    except struct.error:
        return []


def _beginning(file: Path) -> bytes:
    """The beginning of the whole, of which a flattened file has the pieces; empty for another format."""
    with file.open("rb") as pieces:
        if not pieces.read(len(_FLATTENED)).startswith(_FLATTENED):
            pieces.seek(0)
            plain = pieces.read(_MOST_BYTES)
            return plain if plain.startswith(_KDUMP) else b""
        pieces.seek(_HEADER)
        whole = bytearray()
        for _ in range(_MOST_PIECES):
            head = pieces.read(_PIECE.size)
            at, size = _PIECE.unpack(head) if len(head) == _PIECE.size else (-1, -1)
            if min(at, size) < 0 or max(at, size) > _MOST_BYTES:
                break
            whole[len(whole) : at] = bytes(max(0, at - len(whole)))
            whole[at : at + size] = pieces.read(size)
    return bytes(whole)


def _cpus(data: bytes, order: str) -> list[bytes]:
    found, at = [], 0
    while at + 12 <= len(data):
        name, size, kind = struct.unpack_from(f"{order}III", data, at)
        begin = at + 12 + -(-name // 4) * 4
        if kind == _PRSTATUS and data[at + 12 : at + 12 + name] == b"CORE\0":
            found.append(data[begin : begin + size])
        at = begin + -(-size // 4) * 4
    return found
