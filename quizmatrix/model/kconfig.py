"""Kernel configuration fragments: merged for a kernel, and checked against the configuration of the build.

A fragment has lines of `CONFIG_X=value` (value: y, m, n, a number or a string) or `# CONFIG_X is not set`.
A comment at a line's end can limit it: `# optional`, `# from 5.15`, `# before 6.9`, or several of these,
separated by commas.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.errors import DataError
from quizmatrix.core.nearest import nearest
from quizmatrix.core.version import KernelVersion

_LINE = re.compile(r"CONFIG_(\w+)=(\"[^\"]*\"|[ymn]|-?\d+|0[xX][0-9a-fA-F]+)\s*(?:#\s*(.*))?")
# How a kernel's own configuration writes `n`.
NOT_SET = re.compile(r"# CONFIG_(\w+) is not set")
# A symbol's entry in a Kconfig file, and what it depends on there.
_DEFINITION = re.compile(r"^(?:menu)?config (\w+)[ \t]*$((?:\n(?:[ \t].*)?)*)", re.MULTILINE)
_DEPENDS = re.compile(r"^\s+depends on (.*)$", re.MULTILINE)
_LIMIT = re.compile(r"(from|before) (\d+\.\d+)")


# The origin of what the user asks for, in a matrix or on the command line.
_USERS = "asked for"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol that is asked for. origin: the file and line that ask. optional: no error if not had."""

    symbol: str
    value: str
    origin: str
    optional: bool = False

    @property
    def is_users(self) -> bool:
        """Whether the user asks for it, and not a fragment that ships."""
        return self.origin.partition(":")[0] == _USERS

    @property
    def line(self) -> str:
        """As a kernel's configuration has it."""
        return f"CONFIG_{self.symbol}={self.value}"


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """A wish that the kernel's own configuration did not grant. lacking: dependencies that are not set."""

    wish: Wish
    got: str
    lacking: list[str]

    def __str__(self) -> str:
        why = f"; it needs {', '.join(self.lacking)}" if self.lacking else ""
        return f"{self.wish.line} ({self.wish.origin}) is {self.got}{why}"


def parse_fragment(text: str, name: str, version: KernelVersion) -> list[Wish]:
    """The wishes of a fragment that hold for `version`.

    DataError names a line that is none, and two that ask for different values of a symbol.
    """
    wishes: dict[str, Wish] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = NOT_SET.sub(r"CONFIG_\1=n", raw.strip())
        if not line or line.startswith("#"):
            continue
        origin = f"{name}:{number}"
        match = _LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{name}, line {number}",
                cause=f"`{line}` is no line of a kernel configuration",
                next_step="Write CONFIG_X=y, m, n, a number or a quoted string.",
            )
        symbol, value, limits = match.groups()
        words = [word.strip() for word in (limits or "").split(",") if word.strip()]
        if all(_holds(word, version, origin) for word in words):
            before = wishes.get(symbol)
            if before is not None and before.value != value:
                raise DataError(
                    f"{name}, line {number}",
                    cause=f"CONFIG_{symbol} is asked to be {value}, and {before.value} by {before.origin}",
                    next_step="Remove one of the lines, or limit them: `# from 5.15`, `# before 5.15`.",
                )
            optional = "optional" in words
            wishes[symbol] = Wish(symbol=symbol, value=value, origin=origin, optional=optional)
    return list(wishes.values())


def check_fragment(text: str, name: str) -> None:
    """DataError as of `parse_fragment`, before it is known for which kernel the fragment will be."""
    parse_fragment(text, name, KernelVersion("6.1"))


def _holds(word: str, version: KernelVersion, origin: str) -> bool:
    if word == "optional":
        return True
    match = _LIMIT.fullmatch(word)
    if match is None:
        raise DataError(
            origin,
            cause=f"`# {word}` limits nothing",
            next_step="Known: `optional`, `from 5.15`, `before 6.9`.",
        )
    # A candidate has what its release will have.
    here, bound = KernelVersion(version.series), KernelVersion(match.group(2))
    return here >= bound if match.group(1) == "from" else here < bound


def variant_file(name: str) -> Path:
    """Where the fragment of a variant is, or would be."""
    return paths.data_dir("kernel-configs") / "variant" / f"{name}.config"


def variants() -> list[str]:
    """The variants that ship."""
    return sorted(path.stem for path in paths.data_dir("kernel-configs").glob("variant/*.config"))


def fragment_files(arch: str, version: KernelVersion, variant: str | None) -> list[Path]:
    """The fragments for a kernel, the most specific last; those that do not exist are left out."""
    root = paths.data_dir("kernel-configs")
    names = ["common", f"arch/{arch}", f"minor/{version.series}", f"arch-minor/{arch}-{version.series}"]
    found = [root / f"{name}.config" for name in names if (root / f"{name}.config").is_file()]
    if variant is not None and variant_file(variant).is_file():
        found.append(variant_file(variant))
    return found


def wishes_for(arch: str, version: KernelVersion, variant: str | None, extra: list[str]) -> list[Wish]:
    """All that is asked of a kernel, one wish a symbol: of two, the later and more specific one.

    extra: `CONFIG_X=y` lines of the matrix or the command line.
    """
    root = paths.data_dir("kernel-configs")
    wishes: dict[str, Wish] = {}
    texts = [
        (path.read_text(encoding="utf-8"), str(path.relative_to(root)))
        for path in fragment_files(arch, version, variant)
    ]
    for text, name in [*texts, ("\n".join(extra), _USERS)]:
        for wish in parse_fragment(text, name, version):
            wishes.pop(wish.symbol, None)
            wishes[wish.symbol] = wish
    return list(wishes.values())


def fragments_hash(arch: str) -> str:
    """Names the content of all fragments that may be for an architecture, whatever the version."""
    root = paths.data_dir("kernel-configs")
    digest = hashlib.sha256()
    for glob in ("common.config", f"arch/{arch}.config", "minor/*", f"arch-minor/{arch}-*", "variant/*"):
        for path in sorted(root.glob(glob)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def read_config(text: str) -> dict[str, str]:
    """The symbols of a .config that are set, with their values."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))


def without_values(config: str) -> str:
    """A .config without its numbers and strings, so that they get the defaults of what is merged into it.

    powerpc's tinyconfig is one for 32 bits, whose THREAD_SHIFT=13 would give a 64-bit kernel stacks
    of 8 KiB instead of 16, which overflow.
    """
    return re.sub(r"^CONFIG_\w+=(?![ym]$).*\n", "", config, flags=re.MULTILINE)


def unmet(wishes: list[Wish], config: dict[str, str], tree: Path) -> list[Unmet]:
    """The wishes that `config` does not grant, the optional ones left out.

    tree: the kernel's source, where what a symbol depends on is looked up.
    """
    missed = {
        wish.symbol: wish
        for wish in wishes
        if config.get(wish.symbol, "n") != wish.value and not wish.optional
    }
    # Reading every Kconfig file takes a moment, and is for the unhappy alone.
    dependencies = _dependencies(tree) if missed else {}
    found = []
    for symbol, wish in missed.items():
        lacking: list[str] = []
        if symbol not in config:
            lacking = (
                _lacking(dependencies[symbol], config)
                if symbol in dependencies
                else [_unknown(symbol, dependencies)]
            )
        found.append(Unmet(wish=wish, got=config.get(symbol, "not set"), lacking=lacking))
    return found


def unknown(wishes: list[Wish], defined: set[str]) -> list[Unmet]:
    """The wishes for symbols that a kernel does not define, whatever its configuration will be."""
    return [
        Unmet(wish=wish, got="not set", lacking=[_unknown(wish.symbol, defined)])
        for wish in wishes
        if wish.symbol not in defined
    ]


def _dependencies(tree: Path) -> dict[str, list[str]]:
    """Every symbol that a source tree's Kconfig files define, with its `depends on` expressions.

    The grammar is that of the kernel document kbuild/kconfig-language.rst.
    """
    found: dict[str, list[str]] = {}
    for path in tree.rglob("Kconfig*"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for symbol, body in _DEFINITION.findall(text):
            found.setdefault(symbol, []).extend(_DEPENDS.findall(body))
    return found


def _unknown(symbol: str, known: Iterable[str]) -> str:
    near = nearest(symbol, known, 0.8)
    return "a kernel that knows this symbol" + (f" (was {near} meant?)" if near else "")


def _lacking(expressions: list[str], config: dict[str, str]) -> list[str]:
    """The symbols in the expressions that are not set, or set where they must not be.

    Expressions are not evaluated, since a person wants the names.
    """
    names: dict[str, None] = {}
    for expression in expressions:
        for negated, name in re.findall(r"(!?)\b([A-Z][A-Z0-9_]+)\b", expression):
            if (name in config) == bool(negated):
                names[f"{negated}{name}"] = None
    return list(names)
