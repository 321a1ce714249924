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

from quizmatrix.core import paths, tomlfile
from quizmatrix.core.errors import DataError
from quizmatrix.core.nearest import nearest
from quizmatrix.core.version import KernelVersion

_LINE = re.compile(r"CONFIG_(\w+)=(\"[^\"]*\"|[ymn]|-?\d+|0[xX][0-9a-fA-F]+)\s*(?:#\s*(.*))?")
# How a .config writes `n`.
NOT_SET = re.compile(r"# CONFIG_(\w+) is not set")
# A symbol's entry in a Kconfig file, and the dependencies in it.
_DEFINITION = re.compile(r"^(?:menu)?config (\w+)[ \t]*$((?:\n(?:[ \t].*)?)*)", re.MULTILINE)
_DEPENDS = re.compile(r"^\s+depends on (.*)$", re.MULTILINE)
_LIMIT = re.compile(r"(from|before) (\d+\.\d+)")


# The origin of wishes from a matrix or the command line.
_USERS = "asked for"

# By variant: the file at the top of a kernel's source that asks for more.
_OF_TREES = {"kunit": ".kunitconfig"}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A symbol that the configuration should have. origin: file and line. optional: no error if it lacks."""

    symbol: str
    value: str
    origin: str
    optional: bool = False

    @property
    def is_from_user(self) -> bool:
        """Whether it comes from the user, not from a shipped fragment."""
        return self.origin.partition(":")[0] == _USERS

    @property
    def line(self) -> str:
        """As in a .config."""
        return f"CONFIG_{self.symbol}={self.value}"


class Unmet(msgspec.Struct, frozen=True, kw_only=True):
    """A wish that the final configuration does not have. lacking: its dependencies that are not set."""

    wish: Wish
    got: str
    lacking: list[str]

    def __str__(self) -> str:
        why = f"; it needs {', '.join(self.lacking)}" if self.lacking else ""
        return f"{self.wish.line} ({self.wish.origin}) is {self.got}{why}"


def parse_fragment(text: str, name: str, version: KernelVersion) -> list[Wish]:
    """The wishes of a fragment that apply to `version`.

    Raises DataError for an invalid line, and for two lines with different values for one symbol.
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
                cause=f"`{line}` is not a line of a kernel configuration",
                next_step="Write CONFIG_X=y, m, n, a number or a quoted string.",
            )
        symbol, value, limits = match.groups()
        words = [word.strip() for word in (limits or "").split(",") if word.strip()]
        if all(_applies(word, version, origin) for word in words):
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
    """Raises the DataErrors of `parse_fragment` while the kernel's version is not known yet."""
    parse_fragment(text, name, KernelVersion("6.1"))


def joined(lines: Iterable[str], over: Iterable[str]) -> list[str]:
    """Configuration lines, without those for symbols that also `over` has, and then `over`."""
    over = list(over)
    named = {line.partition("=")[0].strip() for line in over}
    return [line for line in lines if line.partition("=")[0].strip() not in named] + over


def _applies(word: str, version: KernelVersion, origin: str) -> bool:
    if word == "optional":
        return True
    match = _LIMIT.fullmatch(word)
    if match is None:
        raise DataError(
            origin,
            cause=f"`# {word}` is not a known limit",
            next_step="Known: `optional`, `from 5.15`, `before 6.9`.",
        )
    # A release candidate has the symbols of its release.
    here, bound = KernelVersion(version.series), KernelVersion(match.group(2))
    return here >= bound if match.group(1) == "from" else here < bound


def variant_file(name: str) -> Path:
    """The path of a variant's fragment, which need not exist."""
    return paths.data_dir("kernel-configs") / "variant" / f"{name}.config"


def variants() -> list[str]:
    """The shipped variants."""
    return sorted(path.stem for path in paths.data_dir("kernel-configs").glob("variant/*.config"))


def fragment_files(arch: str, version: KernelVersion, variant: str | None) -> list[Path]:
    """The existing fragments for a kernel, the most specific last."""
    root = paths.data_dir("kernel-configs")
    names = ["common", f"arch/{arch}", f"minor/{version.series}", f"arch-minor/{arch}-{version.series}"]
    found = [root / f"{name}.config" for name in names if (root / f"{name}.config").is_file()]
    if variant is not None and variant_file(variant).is_file():
        found.append(variant_file(variant))
    return found


def fragment_of_tree(tree: Path, variant: str | None) -> Path | None:
    """The fragment that a kernel's source has for a variant; None if it has none."""
    name = _OF_TREES.get(variant or "")
    return tree / name if name and (tree / name).is_file() else None


def wishes_for(
    arch: str, version: KernelVersion, variant: str | None, extra: list[str], own: Path | None = None
) -> list[Wish]:
    """All wishes for a kernel, one for each symbol: a more specific fragment replaces a more general one.

    extra: `CONFIG_X=y` lines of the matrix or the command line; they come last. own: the fragment of the
    kernel's source, which comes before them. Raises DataError where a fragment is wrong.
    """
    root = paths.data_dir("kernel-configs")
    wishes: dict[str, Wish] = {}
    texts = [
        (path.read_text(encoding="utf-8"), str(path.relative_to(root)))
        for path in fragment_files(arch, version, variant)
    ]
    if own is not None:
        texts.append((tomlfile.read_text(own), str(own)))
    for text, name in [*texts, ("\n".join(extra), _USERS)]:
        for wish in parse_fragment(text, name, version):
            wishes.pop(wish.symbol, None)
            wishes[wish.symbol] = wish
    return list(wishes.values())


def fragments_hash(arch: str) -> str:
    """A hash of all fragments that may apply to an architecture, for any version."""
    root = paths.data_dir("kernel-configs")
    digest = hashlib.sha256()
    for glob in ("common.config", f"arch/{arch}.config", "minor/*", f"arch-minor/{arch}-*", "variant/*"):
        for path in sorted(root.glob(glob)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def read_config(text: str) -> dict[str, str]:
    """The set symbols of a .config, with their values."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.MULTILINE))


def without_values(config: str) -> str:
    """A .config without its numbers and strings, so that these get their defaults after a merge.

    powerpc's tinyconfig is for 32 bits. Its THREAD_SHIFT=13 would give a 64-bit kernel stacks of 8 KiB
    instead of 16 KiB, which overflow.
    """
    return re.sub(r"^CONFIG_\w+=(?![ym]$).*\n", "", config, flags=re.MULTILINE)


def unmet(wishes: list[Wish], config: dict[str, str], tree: Path) -> list[Unmet]:
    """The wishes that `config` does not fulfil, without optional ones.

    tree: the kernel's source; its Kconfig files give the dependencies.
    """
    missed = {
        wish.symbol: wish
        for wish in wishes
        if config.get(wish.symbol, "n") != wish.value and not wish.optional
    }
    # Reading all Kconfig files takes a moment: only done if a wish is unmet.
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
    """The wishes for symbols that the kernel does not define, so that no configuration can have them."""
    return [
        Unmet(wish=wish, got="not set", lacking=[_unknown(wish.symbol, defined)])
        for wish in wishes
        if wish.symbol not in defined
    ]


def _dependencies(tree: Path) -> dict[str, list[str]]:
    """All symbols that a source tree's Kconfig files define, with their `depends on` expressions.

    Grammar: kernel document kbuild/kconfig-language.rst.
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
    """The symbols in the expressions that are not set, or that are set but negated.

    The expressions are not evaluated: a user wants the names.
    """
    names: dict[str, None] = {}
    for expression in expressions:
        for negated, name in re.findall(r"(!?)\b([A-Z][A-Z0-9_]+)\b", expression):
            if (name in config) == bool(negated):
                names[f"{negated}{name}"] = None
    return list(names)
