"""Profiles: optional additions to a guest, such as extra disks, each declared in a folder of its own.

The folder has `profile.toml` (the facts), `setup` (the host half: a program that gets the options in its
environment and prints one JSON object), `init` (the guest half: a script for sh, run by init2) and `files/`
(laid over the guest's root). All but the first are optional.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from quizmatrix.core import paths, tomlfile, units
from quizmatrix.core.errors import DataError, UnpreparedError, UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.model import forward, kconfig

_FACTS = "profile.toml"


class Option(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One option of a profile. size: whole MiB, duration: seconds, once they are read; forwards: see forward.

    needs: the only values that it may have, each with the symbols that the guest's kernel needs for it.
    """

    type: Literal["number", "size", "duration", "switch", "text", "forwards"]
    default: int | bool | str
    help: str
    needs: dict[str, list[str]] = {}


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile.toml.

    summary: what it is. needs: profiles that are set up before it. config: symbols that the guest's
    kernel has to have, built in or as modules. modules: that have to be there, in the kernel layer or the
    cell's build layers; built_by: the command that builds them, {cell} in it being the cell. packages: what
    the base image has to have. network:
    whether the guest gets one. debugger: whether QEMU listens for one. options: by name.
    """

    summary: str
    needs: list[str] = []
    config: list[str] = []
    modules: list[str] = []
    built_by: str = ""
    packages: list[str] = []
    network: bool = False
    debugger: bool = False
    options: dict[str, Option] = {}


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A profile in a cell.

    options: the text of each, checked, in the order of the facts. asked: as the option -p has it.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    asked: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What both halves find the options in: `memdev`'s `count` is MEMDEV_COUNT."""
        return {_variable(f"{self.name}_{option}"): value for option, value in self.options}


def _variable(text: str) -> str:
    return re.sub(r"\W", "_", text).upper()


def folders() -> dict[str, Path]:
    """All profiles by name: those that ship, and the user's own, which come first."""
    found: dict[str, Path] = {}
    for top in (paths.data_dir("guest") / "profiles", paths.config_dir() / "profiles"):
        found |= {path.parent.name: path.parent for path in sorted(top.glob(f"*/{_FACTS}"))}
    return found


def facts_of(name: str, where: str) -> Facts:
    """The facts of a profile; DataError where there is none of this name, `where` being who names it."""
    known = folders()
    if name not in known:
        raise DataError(
            where,
            cause=f"unknown profile `{name}`",
            next_step=f"{did_you_mean(name, known)} Known: {', '.join(known)}.".lstrip(),
        )
    return tomlfile.load(known[name] / _FACTS, Facts)


def parse_words(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read `-p memdev:count=6,size=256M,zfs`: profiles by name with the options given to each."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name = ""
        for word in text.split(","):
            head, _colon, option = word.strip().partition(":")
            if "=" in head:
                option = word.strip()
            elif head:
                name = head
                found.setdefault(name, {})
            if not option:
                continue
            key, equals, value = option.partition("=")
            if not equals or not name:
                raise UsageError(
                    f"-p {text}: `{option}` is no option", next_step="Write -p memdev:count=6,size=256M"
                )
            found[name][key] = value
    return found


def resolve(names: Iterable[str], given: Mapping[str, Mapping[str, Any]], where: str) -> tuple[Use, ...]:
    """The profiles of a cell with all they need, in the order in which they are set up.

    given: options by profile. Raises DataError for an unknown profile or option, a wrong value, or
    profiles that need each other.
    """
    done: dict[str, Use] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            raise DataError(where, cause=f"profiles that need each other: {circle}")
        if name in done:
            return
        facts = facts_of(name, where)
        for needed in facts.needs:
            visit(needed, (*above, name))
        done[name] = _use(name, facts, given.get(name, {}), where)

    for name in names:
        visit(name, ())
    return tuple(done.values())


def _use(name: str, facts: Facts, given: Mapping[str, Any], where: str) -> Use:
    for key in given:
        if key not in facts.options:
            known = ", ".join(facts.options) or "none"
            raise DataError(
                where,
                cause=f"the profile {name} has no option `{key}`",
                next_step=f"{did_you_mean(key, facts.options)} It has: {known}.".lstrip(),
            )
    options = []
    for key, option in facts.options.items():
        try:
            value = _read(option.type, given.get(key, option.default))
            left_out = _read(option.type, option.default)
            if option.needs and value not in ("" if option.type == "switch" else left_out, *option.needs):
                raise ValueError(f"it is one of {', '.join(option.needs)}, not {value!r}")
            options.append((key, value))
        except ValueError as error:
            raise DataError(where, cause=f"{name}:{key}: {error}") from error
    asked = ",".join(f"{key}={value}" for key, value in given.items())
    return Use(name=name, options=tuple(options), asked=f"{name}:{asked}" if asked else name)


def _read(kind: str, value: object) -> str:
    """An option's text as both halves get it; ValueError where it is not of its type."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if kind == "size":
        return str(units.parse_size(text))
    if kind == "duration":
        return "0" if text == "0" else f"{units.parse_duration(text):g}"
    if kind == "number":
        if not re.fullmatch(r"\d{1,9}", text):
            raise ValueError(f"not a whole number: {text!r}")
    elif kind == "switch":
        switch = {"true": "yes", "yes": "yes", "on": "yes", "false": "", "no": "", "off": "", "": ""}
        if text.lower() not in switch:
            raise ValueError(f"neither yes nor no: {text!r}")
        return switch[text.lower()]
    elif "\n" in text:
        raise ValueError("a line break")
    elif kind == "forwards":
        return "+".join(map(str, forward.parse(text)))
    return text


def check(
    use: Use,
    *,
    kernel: str,
    config: str,
    installed: Iterable[str] | None,
    has_module: Callable[[str], bool],
    cell: str,
) -> None:
    """UnpreparedError where a cell lacks what a profile needs.

    kernel: what the cell's is called. config: its configuration. installed: the packages of its base
    image; None for the small one. has_module: whether its guest can load a module. cell: its id.
    """
    facts = facts_of(use.name, "the cell")
    got = kconfig.read_config(config)
    needed = [*facts.config]
    for key, value in use.options:
        needed += facts.options[key].needs.get(value, [])
    lacking = [symbol for symbol in needed if got.get(symbol, "n") not in ("y", "m")]
    if lacking:
        asked = use.asked if set(lacking) - set(facts.config) else use.name
        raise UnpreparedError(
            f"the profile {asked} needs {', '.join(f'CONFIG_{symbol}' for symbol in lacking)}",
            cause=f"the kernel {kernel} has not",
            next_step="Take another kernel; one that is built here has it."
            if asked == use.name
            else "Take another kernel, such as one of Debian's own.",
        )
    unbuilt = [name for name in facts.modules if not has_module(name)]
    if unbuilt:
        raise UnpreparedError(
            f"the profile {use.name} needs the module {', '.join(unbuilt)}",
            cause=f"nothing of that name was built for the kernel {kernel}",
            next_step=facts.built_by.format(cell=cell)
            or f"Install it where `quizmatrix kernel show {kernel}` says.",
        )
    check_packages(use, installed)


def check_packages(use: Use, installed: Iterable[str] | None) -> None:
    """UnpreparedError where a base image lacks what a profile needs; `installed` as of `check`."""
    missing = [name for name in facts_of(use.name, "the cell").packages if name not in (installed or ())]
    if missing:
        raise UnpreparedError(
            f"the profile {use.name} needs {', '.join(missing)} in the base image",
            cause="the small image has no packages" if installed is None else "the image has not",
            next_step="--image debian"
            if installed is None
            else "quizmatrix image build --include " + ",".join(missing),
        )


def forwards_of(use: Use, where: str) -> list[forward.Forward]:
    """The ports that the options of a profile have lead to the guest."""
    options = facts_of(use.name, where).options
    return [
        one for key, text in use.options if options[key].type == "forwards" for one in forward.parse(text)
    ]
