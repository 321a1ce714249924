"""Reads the lists of known failures in OpenZFS's zts-report.py, of any version, without executing it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core.text import clean_line

# Where an installed suite has the file, below a layer's root.
PLACES = tuple(f"{usr}/share/zfs/test-runner/bin/zts-report.py" for usr in ("usr/local", "usr"))

# Of the file so much is read; version 2.4 has 24 KB.
_LONGEST = 1 << 20
# The largest number of tests that are taken from it.
_MOST = 10_000

_ISSUES = "https://github.com/openzfs/zfs/issues/"
# sys.platform in a guest.
_PLATFORM = "linux"


class ListedFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What a list says of a test. result: the runner's word for it, `FAIL`. why: a reason, or an issue."""

    result: str
    why: str


class SuiteLists(msgspec.Struct, frozen=True, kw_only=True):
    """The lists of one version of the suite; a test's name has no `functional/`.

    known: they fail (or are skipped). maybe: they do so now and then.
    """

    known: dict[str, ListedFailure] = {}
    maybe: dict[str, ListedFailure] = {}


def read_lists(roots: Sequence[str]) -> SuiteLists:
    """The lists of the suite that is installed in one of these folders, the topmost last; empty if none is.

    roots: folders that are laid out like a guest's root.
    """
    for path in [Path(root) / place for root in reversed(roots) for place in PLACES]:
        try:
            with path.open("rb") as file:
                return parse_lists(file.read(_LONGEST))
        except OSError:
            continue
    return SuiteLists()


def parse_lists(source: bytes) -> SuiteLists:
    """The lists in the text of a zts-report.py. What is not understood is left out."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return SuiteLists()
    names: dict[str, Any] = {}
    _take(tree.body, names)
    return SuiteLists(known=_listed(names.get("known")), maybe=_listed(names.get("maybe")))


def _listed(found: object) -> dict[str, ListedFailure]:
    """The entries `'TEST': ['RESULT', REASON]` of a list."""
    listed = {}
    for name, entry in list(found.items())[:_MOST] if isinstance(found, dict) else ():
        if not (isinstance(name, str) and isinstance(entry, list | tuple) and len(entry) == 2):
            continue
        result, why = entry
        # A number is an issue; version 2.1 writes it as text.
        reason = f"{_ISSUES}{why}" if str(why).isdecimal() else str(why)
        listed[name] = ListedFailure(result=str(result), why=clean_line(reason))
    return listed


def _take(body: list[ast.stmt], names: dict[str, Any]) -> None:
    """Follow the statements that make the lists: assignments, `.update(...)`, conditions on the system."""
    for statement in body:
        try:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = _value_of(value, names)
                case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=value):
                    names[name][_value_of(key, names)] = _value_of(value, names)
                case ast.Expr(ast.Call(ast.Attribute(value=ast.Name(id=name), attr="update"), args=[more])):
                    names[name].update(_value_of(more, names))
                case ast.If(test=test, body=then, orelse=other):
                    _take(then if _holds(test, names) else other, names)
        except (_UnknownError, KeyError, TypeError, ValueError, AttributeError):
            continue


class _UnknownError(Exception):
    """The value of an expression is not known here."""


def _holds(test: ast.expr, names: dict[str, Any]) -> bool:
    """Whether a condition is met in a guest. One that is not understood (on variables of CI) is not."""
    try:
        return bool(_value_of(test, names))
    except _UnknownError:
        return False


def _value_of(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of an expression. Raises _UnknownError for any but literals, names and sys.platform."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value_of(item, names) for item in items]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_value_of(key, names): _value_of(value, names) for key, value in pairs if key is not None}
        case ast.Attribute(value=ast.Name(id="sys"), attr="platform"):
            return _PLATFORM
        case ast.Call(ast.Attribute(value=of, attr="startswith"), args=[ast.Constant(value=str(start))]):
            return str(_value_of(of, names)).startswith(start)
        case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]):
            return bool(_value_of(left, names) == _value_of(right, names))
    raise _UnknownError
