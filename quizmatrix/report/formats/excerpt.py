"""Cuts a log to the size that a report can hold: its beginning, the first finding, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import msgspec

from quizmatrix.console.watch import first_finding
from quizmatrix.core.text import clean_line

# How many bytes at a log's beginning and end are searched: a panic is at the end, the first splat rarely
# late.
_SEARCHED = 8 << 20
_SEARCHED_END = 1 << 20
# How many bytes are shown before the finding.
_BEFORE = 4096
_LONGEST_LINE = 2000
_CHUNK = 1 << 20


class ExcerptPart(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a log, without gaps. line: the number of its first line, from 1. text: without escapes."""

    line: int
    text: str


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a log. size: of the log, in bytes. left_out: bytes not in parts. finding: its line number."""

    size: int
    left_out: int
    parts: list[ExcerptPart]
    finding: int | None = None


def excerpt(path: Path, limit: int, *, by_console: bool = False) -> Excerpt | None:
    """At most `limit` bytes of a log; None where it is empty or there is no such file.

    by_console: the log is a console; show the first finding in it.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not size:
                return None
            finding = _finding(file, size) if by_console else None
            spans = _spans(size, limit, finding)
            parts, line, at, finding_line = [], 1, 0, None
            for start, end in spans:
                line += _newlines(file, at, start)
                data = _read(file, start, end)
                if finding is not None and start <= finding < end:
                    finding_line = line + data.count(b"\n", 0, finding - start)
                parts.append(ExcerptPart(line=line, text=_clean(data)))
                line += data.count(b"\n")
                at = end
    except OSError:
        return None
    left_out = size - sum(end - start for start, end in spans)
    return Excerpt(size=size, left_out=left_out, parts=parts, finding=finding_line)


def _finding(file: BinaryIO, size: int) -> int | None:
    """The byte offset of the line where the first finding begins."""
    places = [(0, min(size, _SEARCHED))]
    if size > _SEARCHED:
        places.append((max(_SEARCHED, size - _SEARCHED_END), size))
    for start, end in places:
        data = _read(file, start, end)
        line = first_finding(data)
        if line is not None:
            return min(end - 1, start + sum(len(text) + 1 for text in data.split(b"\n", line)[:line]))
    return None


def _spans(size: int, limit: int, finding: int | None) -> list[tuple[int, int]]:
    """The byte ranges to show, in order and without overlaps."""
    if size <= limit:
        return [(0, size)]
    # The beginning shows what ran, the end how it ended.
    head, rest = limit // 8, limit - limit // 8
    if finding is None or finding >= size - rest:
        spans = [(0, head), (size - rest, size)]
    else:
        start = max(0, finding - min(_BEFORE, rest // 4))
        spans = [(0, head), (start, start + rest * 2 // 3), (size - rest // 3, size)]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _newlines(file: BinaryIO, start: int, end: int) -> int:
    file.seek(start)
    found = 0
    while start < end and (chunk := file.read(min(_CHUNK, end - start))):
        found += chunk.count(b"\n")
        start += len(chunk)
    return found


def _clean(data: bytes) -> str:
    lines = data.decode(errors="replace").split("\n")
    return "\n".join(clean_line(line, _LONGEST_LINE) for line in lines)
