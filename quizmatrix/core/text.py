"""Removes escape sequences and control characters from text, and decides whether to use colours."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TextIO

# CSI, OSC and other escape sequences (ECMA-48).
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x1b\\|\x07|$)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
# Control characters, undecodable bytes, and characters that change the direction of writing.
_CONTROLS = re.compile(
    "[\ud800-\udfff\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)

# All of these in a text of several lines, except line feeds and the colours of `paint` and argparse.
_IN_A_BLOCK = rf"(\x1b\[[0-9;]*m)|{_ESCAPES.pattern}|(?![\n]){_CONTROLS.pattern}"

_LONGEST_LINE = 200
_TAIL_BYTES = 1 << 16


def clean_line(text: str, longest: int = _LONGEST_LINE) -> str:
    """The text as one line without escape sequences and control characters, cut to `longest` characters."""
    text = _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\n", " "))).expandtabs(4).rstrip()
    return text if len(text) <= longest else text[:longest] + " ..."


def clean_block(text: str) -> str:
    """A text of several lines without escape sequences and control characters; colours are kept."""
    return re.sub(_IN_A_BLOCK, lambda match: match[1] or "", text)


def first_of(names: list[str], most: int = 3) -> str:
    """`a, b, c and 4 more`: the first names of a list."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def clean_detail(text: str) -> str:
    """Like clean_line, but longer: the explanation of an outcome may contain a whole error message."""
    return clean_line(text, 1000)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file that a guest wrote, cleaned; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            data = file.read(_TAIL_BYTES)
    except OSError:
        return []
    return clean_lines(data)[-lines:]


def clean_lines(data: bytes) -> list[str]:
    """The lines of a guest's output, cleaned, without empty lines at the end."""
    found = [clean_line(line) for line in data.decode(errors="replace").split("\n")]
    while found and not found[-1]:
        found.pop()
    return found


def is_screen(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can be drawn on."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal with colours, and the user has not turned them off (no-color.org)."""
    return not os.environ.get("NO_COLOR") and is_screen(stream)
