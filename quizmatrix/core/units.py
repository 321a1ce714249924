"""Parses and formats durations (`1h30m`), sizes (`512M`) and numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from quizmatrix.core.errors import UsageError

V = TypeVar("V")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MIB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024}


def parse_duration(text: str) -> float:
    """Seconds from `90s`, `20m`, `1h30m`, `500ms` or `90`; ValueError if it is malformed or not positive."""
    text = text.strip()
    if re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text):
        seconds = float(text)
    else:
        parts = re.findall(r"(\d{1,12}(?:\.\d{1,12})?)(ms|s|m|h|d)", text)
        if not parts or "".join(n + u for n, u in parts) != text:
            raise ValueError(f"not a duration: {text!r} (write it as 90s, 20m or 1h30m)")
        seconds = sum(float(n) * _SECONDS[u] for n, u in parts)
    if not 0 < seconds < 1e8:
        raise ValueError(f"a duration has to be more than 0 and less than three years: {text!r}")
    return seconds


def parse_size(text: str) -> int:
    """Whole MiB from `512M`, `1G` or `1.5G`, also with B or iB at the end; ValueError if it is malformed."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"not a size: {text!r} (write it as 512M or 1G)")
    mib = float(match.group(1)) * _MIB[match.group(2).upper()]
    if mib < 1 or mib != int(mib):
        raise ValueError(f"a size has to be a whole number of MiB: {text!r}")
    return int(mib)


def format_seconds(seconds: float) -> str:
    """`0.94s`, `12.3s`, `4m05s`, `1h02m`: short enough for a cell of the grid."""
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"


def checked(option: str, text: str, read: Callable[[str], V]) -> V:
    """The value that `read` makes of an option's text; its ValueError becomes a UsageError."""
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}", cause=str(error)) from error


def whole_number(least: int) -> Callable[[str], int]:
    """A function that parses a whole number of at least `least`, or raises ValueError."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise ValueError(f"has to be a whole number, {least} or more")
        return int(text)

    return read
