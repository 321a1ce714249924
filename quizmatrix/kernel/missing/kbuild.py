"""Says under which options kbuild compiles a file: from the makefiles of its folder and of those above it.

What a makefile does beyond lists of objects (`obj-$(CONFIG_X) += a.o b/`, `foo-y := a.o`) and conditions on
options is not followed. Source of the rules: kernel document kbuild/makefiles.rst.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from quizmatrix.kernel.missing.expression import (
    ALWAYS,
    Either,
    Equal,
    Expression,
    Name,
    Unknown,
    both,
    negated,
)

_ASSIGNMENT = re.compile(r"\s*([^\s:=+?#]+(?:\$\([^)]*\))?[^\s:=+?]*)\s*(?:[:+?]?=|::=)\s*(.*)")
_CONDITION = re.compile(r"\s*(ifdef|ifndef|ifeq|ifneq|else|endif)\b\s*(.*)")
_OPTION = re.compile(r"\$\(CONFIG_(\w+)[:)]|,\$\(CONFIG_(\w+)\)|\$\{CONFIG_(\w+)\}")
# Lists of what is compiled; the others are parts of an object, or variables.
_TARGETS = re.compile(r"(?:obj|lib)-.*|(?:extra|head|always)-y")
_PART = re.compile(r"(.+?)-(?:(?:objs-)?\$\(.*|objs|y|m)")

_MAX_DEPTH = 8


class Assignment(NamedTuple):
    """A line of a makefile that adds words to a variable, and the condition around it."""

    variable: str
    words: frozenset[str]
    condition: Expression


def condition_of(tree: Path, file: str, srcarch: str) -> Expression | None:
    """The condition under which a source file is compiled; None where no makefile names its object."""
    folder, _, name = file.rpartition("/")
    own = _object(tree / folder, f"{name.rpartition('.')[0]}.o", 0)
    return None if own is None else both(own, _folder(tree, folder, srcarch))


def _object(folder: Path, name: str, depth: int) -> Expression | None:
    """The condition under which an object of a folder is linked; None where nothing names it."""
    ways = []
    for line in assignments(folder):
        if name not in line.words or depth > _MAX_DEPTH:
            continue
        condition = both(line.condition, *_options(line.variable))
        if not _TARGETS.fullmatch(line.variable):
            part = _PART.fullmatch(line.variable)
            above = _object(folder, f"{part[1]}.o" if part else f"$({line.variable})", depth + 1)
            if above is None:
                continue
            condition = both(condition, above)
        ways.append(condition)
    return _either(ways)


def _folder(tree: Path, folder: str, srcarch: str) -> Expression:
    """The condition under which kbuild enters a folder; ALWAYS where no makefile above names it."""
    ways = []
    parts = folder.split("/") if folder else []
    for length in range(len(parts) - 1, -1, -1):
        above, below = "/".join(parts[:length]), "/".join(parts[length:])
        lines = list(assignments(tree / above))
        if not above:
            lines += assignments(tree / "arch" / srcarch)
        for line in lines:
            if {f"{below}/", f"./{below}/", f"$(src)/{below}/"} & line.words:
                own = both(line.condition, *_options(line.variable))
                ways.append(both(own, _folder(tree, above, srcarch)))
    return _either(ways) or ALWAYS


def _either(ways: list[Expression]) -> Expression | None:
    if ALWAYS in ways:
        return ALWAYS
    unique = tuple(dict.fromkeys(ways))
    return unique[0] if len(unique) == 1 else Either(unique) if unique else None


def _options(variable: str) -> list[Expression]:
    return [Name(next(filter(None, found))) for found in _OPTION.findall(variable)]


@lru_cache(maxsize=512)
def assignments(folder: Path) -> tuple[Assignment, ...]:
    """The assignments in a folder's makefiles. At the top, and of an architecture, both files count."""
    lines: list[str] = []
    for name in ("Kbuild", "Makefile"):
        try:
            lines += (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
    return tuple(_read(lines))


def _read(lines: list[str]) -> list[Assignment]:
    found = []
    stack: list[Expression] = []
    text = re.sub(r"\\\n", " ", "\n".join(lines))
    for line in (whole.partition("#")[0] for whole in text.splitlines()):
        if match := _CONDITION.fullmatch(line):
            _follow(match[1], match[2], stack)
        elif (match := _ASSIGNMENT.fullmatch(line)) and not line.startswith("\t"):
            words = frozenset(match[2].split())
            found.append(Assignment(match[1], words, both(*stack)))
    return found


def _follow(keyword: str, rest: str, stack: list[Expression]) -> None:
    """Keep the stack of conditions around a line."""
    if keyword == "endif":
        if stack:
            stack.pop()
    elif keyword == "else":
        if stack:
            stack.append(negated(stack.pop()))
            if match := _CONDITION.fullmatch(rest):
                stack.append(both(stack.pop(), _tested(match[1], match[2])))
    else:
        stack.append(_tested(keyword, rest))


def _tested(keyword: str, rest: str) -> Expression:
    """The condition of one `ifeq`, `ifneq`, `ifdef` or `ifndef`."""
    options = _OPTION.findall(rest) or re.findall(r"^\s*CONFIG_(\w+)()()\s*$", rest)
    if len(options) != 1:
        return Unknown()
    name = next(filter(None, options[0]))
    if keyword in ("ifdef", "ifndef"):
        condition: Expression = Name(name)
        return condition if keyword == "ifdef" else negated(condition)
    other = _OPTION.sub("", rest).replace("$(filter", "").strip(" ()\"'")
    sought = set(re.findall(r"[ymn]", other))
    if len(re.findall(r"\w+", other)) > len(sought):
        return Unknown()
    condition = Name(name)
    if sought == {"y"}:
        condition = Equal(name, 2)
    elif sought == {"m"}:
        condition = Equal(name, 1)
    elif not sought or sought == {"n"}:
        condition = negated(condition)
    return condition if keyword == "ifeq" else negated(condition)
