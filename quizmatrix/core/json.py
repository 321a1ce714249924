"""JSON encoding, indented or on one line."""

from __future__ import annotations

import os
from typing import Any

import msgspec


def to_json(value: Any) -> bytes:
    """Indented JSON with a newline at the end."""
    return msgspec.json.format(encode(value)) + b"\n"


def encode(value: Any) -> bytes:
    """JSON on one line. Bytes of words and paths that are not UTF-8 are replaced, as JSON must be UTF-8."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_as_text(msgspec.to_builtins(value)))


def _as_text(value: Any) -> Any:
    if isinstance(value, str):
        return os.fsencode(value).decode(errors="replace")
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return value
