"""Reads the symbols of object files and modules, and which libraries programs need (elf(5)).

Any build may have made these files, so what is read of them has a limit. pyelftools raises its own errors and
Python's for a damaged file; functions here raise ValueError.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import Section

# A symbol (elf(5), Elf64_Sym and Elf32_Sym): name, info and section are the fields that are read.
_SYMBOLS = {64: "IBBHQQ", 32: "IIIBBH"}
_FIELDS = {64: (0, 1, 3), 32: (0, 3, 5)}
_LOCAL, _WEAK = 0, 2
# A name is no longer (include/linux/kallsyms.h, KSYM_NAME_LEN).
_NAME_AT_MOST = 512
# Bytes of a section that are taken apart; the largest modules have 4 MB of symbols.
_SECTION_AT_MOST = 32 << 20
_SECTIONS_AT_MOST = 50_000
# Libraries of a program; none has as many.
_NEEDED_AT_MOST = 1000


@contextmanager
def parsed(data: bytes) -> Iterator[ELFFile]:
    """An object file. Errors of any kind in the block become ValueError."""
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.num_sections() > _SECTIONS_AT_MOST:
            raise ValueError("it has more sections than a compiler makes")
        yield elf
    except Exception as error:  # see above
        raise ValueError(f"not an object file as others are: {error}") from error


def content(section: Section | None) -> bytes:
    """What a section has. Raises ValueError where it is larger than in any module, or compressed."""
    if section is None:
        return b""
    if section.compressed or section["sh_size"] > _SECTION_AT_MOST:
        raise ValueError("a section as no module has it")
    found: bytes = section.data()
    return found


class Symbol(NamedTuple):
    """A symbol that is not local. is_wanted: whether another file has to define it; not if it is weak."""

    name: bytes
    is_undefined: bool
    is_weak: bool

    @property
    def is_wanted(self) -> bool:
        """See above."""
        return self.is_undefined and not self.is_weak


def global_symbols(elf: ELFFile) -> Iterator[Symbol]:
    """The symbols that other files see, or that a file takes of others."""
    symbols = elf.get_section_by_name(".symtab")
    names = content(elf.get_section(symbols["sh_link"])) if symbols else b""
    layout = struct.Struct(("<" if elf.little_endian else ">") + _SYMBOLS[elf.elfclass])
    name_at, info_at, section_at = _FIELDS[elf.elfclass]
    for one in layout.iter_unpack(content(symbols)):
        binding = one[info_at] >> 4
        if binding != _LOCAL:
            name = names[one[name_at] : one[name_at] + _NAME_AT_MOST].split(b"\0")[0]
            yield Symbol(name, one[section_at] == 0, binding == _WEAK)


def needed_by(path: Path) -> list[str]:
    """The libraries that a program or library names. Raises OSError, and ValueError where it is damaged."""
    from elftools.elf.dynamic import DynamicSegment

    with parsed(path.read_bytes()) as elf:
        # By the segment, as the loader: a program needs no sections.
        dynamic = next(elf.iter_segments("PT_DYNAMIC"), None)
        if not isinstance(dynamic, DynamicSegment):
            return []
        tags = islice(dynamic.iter_tags("DT_NEEDED"), _NEEDED_AT_MOST)
        # DynamicTag gets this attribute by setattr().
        return [str(getattr(tag, tag.entry.d_tag.removeprefix("DT_").lower())) for tag in tags]
