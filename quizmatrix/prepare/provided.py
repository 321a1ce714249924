"""What a run takes because its command needs it: the profile that provides the command, and what that needs.

A profile.toml names the commands that it provides, and what a cell gets for them. What the user gave, in the
matrix or on the command line, wins key by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core import elf, paths
from quizmatrix.core.errors import DataError, UnpreparedError
from quizmatrix.core.units import format_seconds, parse_duration, parse_size
from quizmatrix.image.commands import has_command
from quizmatrix.model import profile
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell, debian_suite
from quizmatrix.model.matrix import Limits
from quizmatrix.model.outcome import Outcome

# The folders of a layer in which a guest finds commands.
_BIN = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")


class Provision(msgspec.Struct, frozen=True, kw_only=True):
    """What a run takes for its command.

    word: the command's program. profiles: the one that provides it and those it wants, unless they are there.
    limits: where neither matrix nor options say. include: what a Debian image has to have. instead: a command
    for cells that cannot have the image.
    """

    word: str
    profiles: list[str]
    limits: Limits
    include: tuple[str, ...]
    instead: str


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken. sentence: says so; empty where it was nothing.

    built_from: what the profiles taken are built from, by profile.toml's names.
    """

    sentence: str
    built_from: frozenset[str]


def find(command: Sequence[str], cells: Sequence[Cell], layers: Iterable[str]) -> Provision | None:
    """What is taken for a command; None where no profile provides it, or where the guest has it anyway.

    cells: as the user asked for them, one at least. layers: the user's. Raises DataError where the profile is
    wrong.
    """
    word = elf.first_word(command)
    names = profile.providers().get(word, []) if word is not None else []
    if word is None or not names:
        return None
    asked = {use.name for use in cells[0].profiles}
    name = next((name for name in names if name in asked), None)
    if name is None and _guest_has(word, cells[0], layers):
        return None
    # A user's own profile is behind those that ship.
    chosen = name or names[-1]
    given = profile.facts_of(chosen, "the profiles").provided
    try:
        limits = Limits(image=given.image, memory=given.memory, cpus=given.cpus, timeout=given.timeout)
    except ValueError as error:
        raise DataError(f"the profile {chosen}", cause=f"[provided]: {error}") from error
    return Provision(
        word=word,
        profiles=[] if name else [chosen, *given.profiles],
        limits=limits,
        include=tuple(given.include),
        instead=given.instead,
    )


def _guest_has(word: str, cell: Cell, layers: Iterable[str]) -> bool:
    standing = paths.standing_layer()
    tops = [Path(layer) for layer in layers] + ([standing] if standing else [])
    if any((top / folder / word).exists() for top in tops for folder in _BIN):
        return True
    return has_command(load_arch(cell.arch), cell.image, word)


def completed(provision: Provision, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with the packages that their images need; those that cannot have the image are skipped."""
    replace = msgspec.structs.replace
    made = []
    for cell in cells:
        if debian_suite(cell.image) is None or not provision.limits.image:
            made.append(cell)
        elif why := _why_not(provision, cell):
            made.append(replace(cell, skipped=why, expected=Outcome.SKIPPED, why=why))
        else:
            made.append(replace(cell, include=provision.include))
    return made


def _why_not(provision: Provision, cell: Cell) -> str:
    """Why a cell cannot have its image; empty where it can."""
    from quizmatrix.image import debian

    try:
        debian.choose_suite(load_arch(cell.arch), debian_suite(cell.image) or None)
    except UnpreparedError as error:
        instead = f"; {provision.instead} runs there" if provision.instead else ""
        return f"{provision.word} needs a Debian image, and {error.fact}{instead}"
    return ""


def taken(provision: Provision, before: Sequence[Cell], after: Sequence[Cell]) -> Taken:
    """What the difference between the cells as they were asked for and as they are is."""
    had = {use.name for use in before[0].profiles}
    added = [use.name for use in after[0].profiles if use.name not in had]
    parts = [f"profile{'s' if len(added) > 1 else ''} {', '.join(added)}"] if added else []
    if images := _changed(before, after, _image_words):
        parts.append(f"image {images}")
    limits = [_changed(before, after, _words_of(key)) for key in _SHOWN]
    parts += [", ".join(filter(None, limits))] if any(limits) else []
    hint = " (--no-provide: as typed)" if parts else ""
    parts += _kept(provision, after)
    facts = [profile.facts_of(name, "the profiles") for name in added]
    return Taken(
        sentence=f"{provision.word}: {'; '.join(parts)}{hint}" if parts else "",
        built_from=frozenset(one.built_from for one in facts if one.built_from),
    )


def _changed(before: Sequence[Cell], after: Sequence[Cell], words: Callable[[Cell], str]) -> str:
    """What of the cells after differs from before, in the words of each that is run."""
    both = zip(before, after, strict=True)
    pairs = [(words(one), words(other)) for one, other in both if not other.skipped]
    return " or ".join(dict.fromkeys(other for one, other in pairs if one != other))


def _kept(provision: Provision, cells: Sequence[Cell]) -> list[str]:
    """Words for settings of the user's that are not what the command needs."""
    run = [cell for cell in cells if not cell.skipped]
    wanted = provision.limits
    said = []
    if wanted.image and debian_suite(wanted.image) is not None:
        others = dict.fromkeys(cell.image for cell in run if debian_suite(cell.image) is None)
        said += [f"image {name} as asked for, not {wanted.image}" for name in others]
    for key, shown in _SHOWN.items():
        if (text := getattr(wanted, key)) is None:
            continue
        wish = shown.read(text)
        lower = dict.fromkeys(value for cell in run if (value := getattr(cell, key)) < wish)
        said += [f"{shown.words(value)} as asked for, not {shown.show(wish)}" for value in lower]
    return said


def _image_words(cell: Cell) -> str:
    return "+".join([cell.image, *cell.include])


class _Shown(msgspec.Struct, frozen=True, kw_only=True):
    """How a limit is told.

    show: shows a cell's value. read: reads a profile's. label: what it is, where the value does not say so.
    """

    show: Callable[[Any], str]
    read: Callable[[Any], Any]
    label: str = ""

    def words(self, value: Any) -> str:
        """A cell's value, with what it is."""
        return self.label + self.show(value)


def _mib(size: int) -> str:
    return f"{size // 1024} GiB" if size % 1024 == 0 else f"{size} MiB"


def _cpus(number: int) -> str:
    return f"{number} CPU{'s' if number > 1 else ''}"


# In the order in which they are told.
_SHOWN = {
    "memory": _Shown(show=_mib, read=parse_size),
    "cpus": _Shown(show=_cpus, read=int),
    "timeout": _Shown(show=format_seconds, read=parse_duration, label="time limit "),
}


def _words_of(key: str) -> Callable[[Cell], str]:
    return lambda cell: _SHOWN[key].words(getattr(cell, key))
