"""TOML files read strictly: an unknown key or a wrong type is named with its line and the nearest key."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from quizmatrix.errors import DataError

T = TypeVar("T")


def load(path: Path, kind: type[T]) -> T:
    """Read `path` as a `kind` (a msgspec Struct); DataError says the file, the line and the mend."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}", cause=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}", cause="it is not UTF-8 text") from error
    return parse(text, kind, str(path))


def parse(text: str, kind: type[T], name: str) -> T:
    """The same for a text; `name` is what errors call it."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{name} is not TOML", cause=str(error)) from error
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explain(text, raw, kind, name, str(error)) from error


def _explain(text: str, raw: dict[str, Any], kind: type[Any], name: str, said: str) -> DataError:
    """msgspec says "... - at `$.a[0].b`"; a person wants the line, and the word that was meant."""
    message, _, where = said.partition(" - at `")
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", where)
    keys = [key for key, _ in steps if key]
    # What a struct's own check says begins with the key, in backquotes.
    named = re.match(r"`([\w-]+)`: (.*)", message)
    if named:
        keys.append(named.group(1))
        message = named.group(2)
    unknown = re.search(r"unknown field `(.*)`", message)
    next_step = ""
    if unknown:
        key = unknown.group(1)
        near = difflib.get_close_matches(key, _known_keys(kind), 1, 0.5)
        message = f"unknown key `{key}`"
        next_step = f"Did you mean `{near[0]}`?" if near else ""
        keys.append(key)
    line = _line_of(text, keys)
    place = f"{name}, line {line}" if line else name
    cause = message[:1].lower() + message[1:]
    if keys and not unknown:
        cause = f"`{'.'.join(keys)}`: {cause}"
    return DataError(place, cause=cause, next_step=next_step)


def _known_keys(kind: type[Any]) -> list[str]:
    """Every key of `kind` and of the structs inside it: near misses are looked for among them all."""
    found: list[str] = []

    def visit(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            for field in info.fields:
                found.append(field.encode_name)
                visit(field.type)
        for inner in ("item_type", "value_type"):
            if hasattr(info, inner):
                visit(getattr(info, inner))
        for option in getattr(info, "types", ()):
            visit(option)

    visit(msgspec.inspect.type_info(kind))
    return found


def _line_of(text: str, keys: list[str]) -> int | None:
    """The line that most likely holds the last of `keys`, at or below where the ones before it stand."""
    lines = text.splitlines()
    start = 0
    found = None
    for key in keys:
        word = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
        for number in range(start, len(lines)):
            if word.search(lines[number].split("#")[0]):
                start, found = number, number + 1
                break
    return found
