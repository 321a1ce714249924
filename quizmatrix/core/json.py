"""JSON encoding: for other programs, which need UTF-8, and without loss for quizmatrix itself."""

from __future__ import annotations

import contextlib
import os
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


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
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    return value


def encode_exactly(value: Any) -> bytes:
    """JSON on one line from which `decode_exactly` makes an equal value.

    Python reads a byte that is not UTF-8, such as 0xff in a file's name, as the lone surrogate U+DCFF
    (PEP 383). JSON can write that only as the escape `\\udcff`, which not all programs can read.
    """
    with contextlib.suppress(UnicodeEncodeError):
        text = msgspec.json.encode(value)
        if text.isascii():
            return text
    import json

    return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def decode_exactly(data: bytes, kind: type[T]) -> T:
    """Read the output of `encode_exactly`. Raises ValueError for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        # Python's parser reads lone surrogates, too.
        import json

        return msgspec.convert(json.loads(data), kind)
