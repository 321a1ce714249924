"""Reads a kernel's options from the Kconfig files of its source: prompts, dependencies, selects, defaults.

kconfiglib 14.1 cannot read the files of kernels from 5.14 on (it stops at `modules`), and it asks the
compiler for each macro. Grammar: kernel document kbuild/kconfig-language.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from quizmatrix.kernel.missing.expression import ALWAYS, Expression, both, mentioned, parse

# Files nested deeper than any kernel's.
_MAX_DEPTH = 20

_STATEMENT = re.compile(r"\s*(---help---|[a-z_]+)(?:[ \t]+(.*)|(?=\()(.*)|[ \t]*$)")
_BEGINS = frozenset({"config", "menuconfig", "choice", "menu", "if", "source", "comment", "mainmenu"})
_ENDS = frozenset({"endchoice", "endmenu", "endif"})
_IF = re.compile(r"(?:^|\s+)if\s+(?=[^\"']*$)")
_PROMPT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_TYPES = frozenset({"bool", "tristate", "int", "hex", "string", "def_bool", "def_tristate"})


class Entry:
    """One definition of an option. Conditions are those of the entry and of the blocks around it.

    defaults: values, each with its condition. selects: names of options, each with its condition.
    """

    def __init__(self, name: str, file: str, conditions: list[Expression], visible: list[Expression]) -> None:
        self.name = name
        self.file = file
        self.is_tristate = False
        self.has_value = False
        self.in_choice = False
        self._depends = list(conditions)
        self._visible = list(visible)
        self._prompt: Expression | None = None
        self._defaults: list[tuple[str, str]] = []
        self._selects: list[tuple[str, str]] = []

    @cached_property
    def depends(self) -> Expression:
        """What it depends on."""
        return both(*self._depends)

    @cached_property
    def prompt(self) -> Expression | None:
        """The condition under which a user may set it; None where that is never possible."""
        return None if self._prompt is None else both(self._prompt, *self._visible)

    @cached_property
    def defaults(self) -> list[tuple[Expression, Expression]]:
        return [(parse(value), _condition(condition)) for value, condition in self._defaults]

    @cached_property
    def selects(self) -> list[tuple[str, Expression]]:
        return [(name, _condition(condition)) for name, condition in self._selects]

    def read(self, keyword: str, rest: str) -> None:
        """Read one line of the definition."""
        if keyword in _TYPES:
            self.is_tristate |= keyword.endswith("tristate")
            self.has_value |= keyword in ("int", "hex", "string")
            if keyword.startswith("def_"):
                self._defaults.append(_parts(rest))
            elif rest:
                self._prompt = _condition(_parts(rest)[1])
        elif keyword == "prompt":
            self._prompt = _condition(_parts(rest)[1])
        elif keyword == "default":
            self._defaults.append(_parts(rest))
        elif keyword == "depends":
            self._depends.append(parse(rest.removeprefix("on")))
        elif keyword == "select":
            self._selects.append(_parts(rest))

    def mentioned(self) -> Iterator[str]:
        """The options in its conditions."""
        for expression in (self.depends, self.prompt or ALWAYS):
            yield from mentioned(expression)
        for value, condition in self.defaults:
            yield from mentioned(value)
            yield from mentioned(condition)


def _parts(text: str) -> tuple[str, str]:
    """Value and condition of `VALUE if CONDITION`; the value may be a prompt."""
    prompt = _PROMPT.match(text)
    start = prompt.end() if prompt else 0
    match = _IF.search(text, start)
    return (text[: match.start()].strip(), text[match.end() :]) if match else (text.strip(), "")


def _condition(text: str) -> Expression:
    return parse(text) if text else ALWAYS


class _Block:
    """A menu, a choice or an `if`. Lines after its head, up to the next statement, are of the block."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.conditions: list[Expression] = []
        self.visible: list[Expression] = []

    def read(self, keyword: str, rest: str) -> None:
        if keyword == "depends":
            self.conditions.append(parse(rest.removeprefix("on")))
        elif keyword == "visible":
            self.visible.append(parse(rest.removeprefix("if")))
        elif keyword == "prompt" and self.kind == "choice" and (condition := _parts(rest)[1]):
            self.visible.append(parse(condition))


class OptionTree:
    """The options that a kernel's Kconfig files define for one architecture."""

    def __init__(self, tree: Path, srcarch: str) -> None:
        """srcarch: the architecture's folder below arch/."""
        self.entries: dict[str, list[Entry]] = {}
        self.selectors: dict[str, list[tuple[Entry, Expression]]] = {}
        self._tree = tree.resolve()
        self._srcarch = srcarch
        self._blocks: list[_Block] = []
        self._read("Kconfig", 0)
        for entries in self.entries.values():
            for entry in entries:
                for name, condition in entry.selects:
                    self.selectors.setdefault(name, []).append((entry, condition))

    @cached_property
    def dependents(self) -> dict[str, set[str]]:
        """For each option, those that have it in a condition."""
        found: dict[str, set[str]] = {}
        for name, entries in self.entries.items():
            for entry in entries:
                for other in entry.mentioned():
                    found.setdefault(other, set()).add(name)
        return found

    def is_tristate(self, name: str) -> bool:
        """Whether an option can be a module."""
        return any(entry.is_tristate for entry in self.entries.get(name, ()))

    def _read(self, file: str, depth: int) -> None:
        path = self._tree / file
        if depth > _MAX_DEPTH or not path.resolve().is_relative_to(self._tree):
            return
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        target: Entry | _Block | None = None
        for keyword, rest in _statements(text):
            if keyword in _BEGINS:
                target = self._begin(keyword, rest, file, depth)
            elif keyword in _ENDS:
                target = None
                if self._blocks:
                    self._blocks.pop()
            elif target is not None:
                target.read(keyword, rest)

    def _begin(self, keyword: str, rest: str, file: str, depth: int) -> Entry | _Block | None:
        if keyword in ("config", "menuconfig"):
            conditions = [one for block in self._blocks for one in block.conditions]
            visible = [one for block in self._blocks for one in block.visible]
            entry = Entry(rest.strip(), file, conditions, visible)
            entry.in_choice = bool(self._blocks) and self._blocks[-1].kind == "choice"
            self.entries.setdefault(entry.name, []).append(entry)
            return entry
        if keyword == "source":
            path = re.sub(r"\$\((?:SRCARCH|ARCH)\)|\$SRCARCH", self._srcarch, rest.strip().strip("\"'"))
            self._read(path, depth + 1)
        elif keyword in ("choice", "menu", "if"):
            block = _Block(keyword)
            if keyword == "if":
                block.conditions.append(parse(rest))
            self._blocks.append(block)
            return block if keyword != "if" else None
        return None


def _statements(text: str) -> Iterator[tuple[str, str]]:
    """The keyword of each statement, and the rest of its line, without help texts and comments."""
    help_indent: int | None = None  # None: not in a help text; -1: its first line is still to come
    for line in text.replace("\\\n", " ").expandtabs(8).splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if help_indent is not None:
            if help_indent < 0 and indent:
                help_indent = indent
            if indent and indent >= help_indent:
                continue
            help_indent = None
        match = _STATEMENT.match(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        if match[1] in ("help", "---help---"):
            help_indent = -1
        else:
            yield match[1], _without_comment(match[2] or match[3] or "")


def _without_comment(rest: str) -> str:
    return re.sub(r"\s+#[^\"']*$", "", rest)


@lru_cache(maxsize=4)
def option_tree(tree: Path, srcarch: str) -> OptionTree:
    """The options of a source tree, read once."""
    return OptionTree(tree, srcarch)
