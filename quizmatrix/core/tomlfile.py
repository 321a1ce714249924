"""Reads TOML files strictly: errors name the line, the wrong key or type, and the nearest known key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from quizmatrix.core.errors import DataError
from quizmatrix.core.nearest import did_you_mean

T = TypeVar("T")


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file into a msgspec Struct. DataError names the file, the line and the fix."""
    return parse(read_text(path), kind, str(path))


def load_over(shipped: Path, own: Path, kind: type[T]) -> T:
    """Read a shipped file, with the keys that the user's file replaces, at any depth, if that exists.

    Raises DataError as `load` does.
    """
    if not own.is_file():
        return load(shipped, kind)
    text = read_text(own)
    raw = _merged(_tables(read_text(shipped), str(shipped)), _tables(text, str(own)))
    return _convert(text, raw, kind, str(own))


def parse(text: str, kind: type[T], name: str) -> T:
    """Like `load`, for TOML text. name: what error messages call it."""
    return _convert(text, _tables(text, name), kind, name)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; DataError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}", cause=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}", cause="it is not UTF-8 text") from error


def _tables(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML's own errors are ValueErrors
        raise DataError(f"{name} is not TOML", cause=str(error)) from error


def _merged(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _convert(text: str, raw: dict[str, Any], kind: type[T], name: str) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _explain(text, raw, kind, name, str(error)) from error


def _explain(text: str, raw: dict[str, Any], kind: type[Any], name: str, said: str) -> DataError:
    """Turn msgspec's "... - at `$.a[0].b`" into an error with the line and the nearest known key."""
    message, _, where = said.partition(" - at `")
    path: list[str | int] = [
        key or (int(index) if index.isdigit() else "...")
        for key, index in re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", where)
    ]
    path, struct = _with_real_keys(path, raw, msgspec.inspect.type_info(kind))
    keys = [part for part in path if isinstance(part, str)]
    unknown = re.search(r"unknown field `(.*)`", message)
    missing = re.search(r"missing required field `(.*)`", message)
    # An error raised by a struct's __post_init__ begins with the key, in backquotes: `KEY` or `TABLE.KEY`.
    own = re.match(r"`([\w.-]+)`: (.*)", message)
    next_step = ""
    if unknown:
        key = unknown.group(1)
        message = f"unknown key `{key}`"
        next_step = did_you_mean(key, _keys_of(struct)) or f"Known: {', '.join(_keys_of(struct))}."
        path.append(key)
    elif missing:
        message = f"the key `{missing.group(1)}` is missing"
        fields = getattr(_without_optional(struct), "fields", ())
        required = [field.encode_name for field in fields if field.required]
        next_step = f"Needed: {', '.join(required)}."
    elif own:
        path += own.group(1).split(".")
        keys.append(own.group(1))
        message = own.group(2)
    elif len(path) == 1 and re.search("Expected `(object|array)`", message):
        # A list where a table belongs, or a table for a list: `kernel = [...]` for `kernels`.
        others = [key for key in _keys_of(msgspec.inspect.type_info(kind)) if key not in keys]
        next_step = did_you_mean(keys[0], others, 0.75)
    # `int | null`: TOML has no null.
    message = message.replace(" | null`", "`")
    line = _line_of(text, raw, path)
    place = f"{name}, line {line}" if line else name
    cause = message[:1].lower() + message[1:]
    if keys and not unknown:
        cause = f"`{'.'.join(keys)}`: {cause}"
    return DataError(place, cause=cause, next_step=next_step)


def _with_real_keys(path: list[str | int], raw: Any, info: Any) -> tuple[list[str | int], Any]:
    """`path` with each `...` (any key of a table) replaced by the wrong key, and the type at its end."""
    found: list[str | int] = []
    for part in path:
        info = _without_optional(info)
        if part == "...":
            inner = info.value_type
            part = next((key for key, value in raw.items() if not _fits(value, inner)), "...")  # noqa: PLW2901
        elif isinstance(part, int):
            inner = info.item_type
        else:
            inner = next((field.type for field in info.fields if field.encode_name == part), info)
        found.append(part)
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            break
        info = inner
    return found, info


def _without_optional(info: Any) -> Any:
    """The struct behind an Optional (`Struct | None`); any other type unchanged."""
    tables = [
        option for option in getattr(info, "types", ()) if isinstance(option, msgspec.inspect.StructType)
    ]
    return tables[0] if tables else info


def _fits(value: Any, info: Any) -> bool:
    """Whether a value has the type; True for types that no table has."""
    if isinstance(info, msgspec.inspect.DictType):
        return isinstance(value, dict) and all(_fits(one, info.value_type) for one in value.values())
    if isinstance(info, msgspec.inspect.ListType):
        return isinstance(value, list) and all(_fits(one, info.item_type) for one in value)
    if isinstance(info, msgspec.inspect.StrType):
        return isinstance(value, str)
    if not isinstance(info, msgspec.inspect.StructType):
        return True
    try:
        msgspec.convert(value, info.cls)
    except msgspec.ValidationError:
        return False
    return True


def _keys_of(info: Any) -> list[str]:
    """The keys of a struct, or of all structs in a union."""
    if isinstance(info, msgspec.inspect.UnionType):
        return [key for option in info.types for key in _keys_of(option)]
    return [field.encode_name for field in getattr(info, "fields", ())]


def _line_of(text: str, raw: Any, path: list[str | int]) -> int | None:
    """The line of the last key in `path`. Each key is searched from the line of the key before it.

    A list item has no key of its own. It is found by counting: items before it that have the next key are
    skipped.
    """
    lines = [_without_strings(line) for line in text.splitlines()]
    at, found, skip = 0, None, 0
    for place, part in enumerate(path):
        if isinstance(part, int):
            key = path[place + 1] if place + 1 < len(path) else None
            skip = sum(1 for item in raw[:part] if isinstance(item, dict) and key in item)
        else:
            word = re.compile(rf"(?<![\w-]){re.escape(part)}(?=[\"']?\s*[=\].])")
            places = [n for n in range(at, len(lines)) for _ in word.findall(lines[n])]
            if len(places) > skip:
                at = places[skip]
                found = at + 1
            skip = 0
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            break
    return found


def _without_strings(line: str) -> str:
    """A line of TOML without its comment and without string values (after `=` or in a list)."""
    line = re.sub(r"""(?<=[=\[,{])\s*("[^"]*"|'[^']*')(?!\s*[=.])""", "", line)
    return line.partition("#")[0]
