"""Profiles: optional additions to a guest, such as extra disks, each declared in a folder of its own.

The folder has `profile.toml` (the facts), `setup` (the host half: a program that gets the options in its
environment and prints one JSON object), `init` (the guest half: a script for sh, run by init2) and `files/`
(laid over the guest's root). All but the first are optional.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from quizmatrix.core import paths, tomlfile, units
from quizmatrix.core.errors import DataError, UnpreparedError, UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.model import forward, kconfig
from quizmatrix.model.arch import NATIVE
from quizmatrix.model.known import KnownFailure

_FACTS = "profile.toml"
# The program that is a profile's host half.
HOST_HALF = "setup"


class Option(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One option of a profile.

    type: when read, a `size` becomes whole MiB and a `duration` seconds; for `forwards` see model/forward.py.
    needs: the allowed values, if they are limited; each with the symbols that the guest's kernel must have.
    """

    type: Literal["number", "size", "duration", "switch", "text", "forwards"]
    default: int | bool | str
    help: str
    needs: dict[str, list[str]] = {}


class Provided(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cell gets with a command that a profile provides, as far as neither matrix nor options say.

    profiles: further profiles.
    image: the base image; include: packages, and sets of packages, that it has to have.
    memory, cpus, timeout: as a matrix has them.
    instead: a command for cells that cannot have the image.
    """

    profiles: list[str] = []
    image: str | None = None
    include: list[str] = []
    memory: str | None = None
    cpus: int | None = None
    timeout: str | None = None
    instead: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a profile.toml, a field for each.

    summary: one line for a user.
    needs: profiles that are set up before it.
    config: symbols that the guest's kernel must have, built in or as modules.
    variant: the variant of a kernel built here that has them, if the small configuration does not.
    modules: modules that the kernel layer or the cell's build layers must have.
    built_by: the command that builds these modules; {cell} in it is replaced by the cell's id.
    built_from: the kind of work tree that they are built from; `selftests`: each cell's kernel has them.
    packages: packages that the base image must have.
    network: whether the guest gets a network.
    debugger: whether QEMU waits for connections of a debugger.
    options: by name.
    provides: commands that guests have by it. provided: what else a cell gets for such a command.
    known: failures of their tests that are no news. Their `arch` is a name, and not `native`.
    """

    summary: str
    needs: list[str] = []
    config: list[str] = []
    variant: str = ""
    modules: list[str] = []
    built_by: str = ""
    built_from: Literal["", "openzfs", "selftests"] = ""
    packages: list[str] = []
    network: bool = False
    debugger: bool = False
    options: dict[str, Option] = {}
    provides: list[str] = []
    provided: Provided = Provided()
    known: list[KnownFailure] = []

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is wrong."""
        if any(one.arch == NATIVE for one in self.known):
            raise ValueError(f"`known`: no architecture is `{NATIVE}` here")


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A profile in a cell.

    options: name and checked text of each option, in the order of profile.toml.
    asked: the profile as written for the option -p.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()
    asked: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The options as environment variables for both halves: `memdev`'s `count` is MEMDEV_COUNT."""
        return {_variable(f"{self.name}_{option}"): value for option, value in self.options}


def _variable(text: str) -> str:
    return re.sub(r"\W", "_", text).upper()


def folders() -> dict[str, Path]:
    """The folders of all profiles, by name. A user's profile replaces a shipped one of the same name."""
    found: dict[str, Path] = {}
    for top in (paths.data_dir("guest") / "profiles", paths.config_dir() / "profiles"):
        found |= {path.parent.name: path.parent for path in sorted(top.glob(f"*/{_FACTS}"))}
    return found


def is_users(name: str) -> bool:
    """Whether a profile is one of the user's own."""
    return _is_own(folders()[name])


def _is_own(folder: Path) -> bool:
    return folder.is_relative_to(paths.config_dir())


def own_without_host_half(names: Iterable[str]) -> dict[str, str]:
    """The folders of those of these profiles that are the user's own and run nothing on the host."""
    known = folders()
    return {
        name: str(known[name])
        for name in names
        if _is_own(known[name]) and not (known[name] / HOST_HALF).exists()
    }


def facts_of(name: str, where: str) -> Facts:
    """Read a profile's facts; DataError if there is no such profile. where: what names it, for the error."""
    return facts_in(folder_of(name, where))


def facts_in(folder: Path) -> Facts:
    """Read the facts of the profile in a folder. Raises DataError."""
    return tomlfile.load(folder / _FACTS, Facts)


def folder_of(name: str, where: str) -> Path:
    """A profile's folder; DataError if there is no such profile. where: what names it, for the error."""
    known = folders()
    if name not in known:
        raise DataError(
            where,
            cause=f"unknown profile `{name}`",
            next_step=f"{did_you_mean(name, known)} Known: {', '.join(known)}.".lstrip(),
        )
    return known[name]


def providers() -> dict[str, list[str]]:
    """The names of the profiles that provide each command. A profile that cannot be read provides none."""
    found: dict[str, list[str]] = {}
    for name, folder in folders().items():
        with contextlib.suppress(DataError):
            for command in facts_in(folder).provides:
                found.setdefault(command, []).append(name)
    return found


def parse_profiles(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read `-p memdev:count=6,size=256M,zfs` into the options of each profile; UsageError if malformed."""
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
                    f"-p {text}: `{option}` is not an option", next_step="Write -p memdev:count=6,size=256M"
                )
            found[name][key] = value
    return found


def resolve(names: Iterable[str], given: Mapping[str, Mapping[str, Any]], where: str) -> tuple[Use, ...]:
    """The profiles of a cell and all that they need, in the order in which they are set up.

    given: options by profile. Raises DataError for an unknown profile or option, a wrong value, or a
    dependency cycle.
    """
    done: dict[str, Use] = {}

    def add_with_needs(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            raise DataError(where, cause=f"profiles that need each other: {circle}")
        if name in done:
            return
        facts = facts_of(name, where)
        for needed in facts.needs:
            add_with_needs(needed, (*above, name))
        done[name] = _use(name, facts, given.get(name, {}), where)

    for name in names:
        add_with_needs(name, ())
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
            value = _option_text(option.type, given.get(key, option.default))
            left_out = _option_text(option.type, option.default)
            if option.needs and value not in ("" if option.type == "switch" else left_out, *option.needs):
                raise ValueError(f"it is one of {', '.join(option.needs)}, not {value!r}")
            options.append((key, value))
        except ValueError as error:
            raise DataError(where, cause=f"{name}:{key}: {error}") from error
    asked = ",".join(f"{key}={value}" for key, value in given.items())
    return Use(name=name, options=tuple(options), asked=f"{name}:{asked}" if asked else name)


def _option_text(kind: str, value: object) -> str:
    """An option's value as the text that both halves get; ValueError if it is not of its type."""
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
    has_module: Callable[[str], bool],
    cell: str,
) -> None:
    """Raises UnpreparedError if a cell's kernel lacks something that a profile needs.

    kernel: the name of the cell's kernel.
    config: the kernel's .config.
    has_module: whether the guest can load a module of this name.
    cell: the cell's id.
    """
    facts = facts_of(use.name, "the cell")
    got = kconfig.read_config(config)
    needed = [*facts.config]
    for key, value in use.options:
        needed += facts.options[key].needs.get(value, [])
    lacking = [symbol for symbol in needed if got.get(symbol, "n") not in ("y", "m")]
    if lacking:
        asked = use.asked if set(lacking) - set(facts.config) else use.name
        next_step = "Take another kernel, such as one of Debian's own."
        if asked == use.name:
            with_it = f" with the variant {facts.variant}" if facts.variant else ""
            next_step = f"Take another kernel; one that is built here{with_it} has it."
            if facts.variant:
                next_step += f" As in --only debian-source:6.12-x86_64+{facts.variant}"
        raise UnpreparedError(
            f"the profile {asked} needs {', '.join(f'CONFIG_{symbol}' for symbol in lacking)}",
            cause=f"the kernel {kernel} does not have it",
            next_step=next_step,
        )
    unbuilt = [name for name in facts.modules if not has_module(name)]
    if unbuilt:
        raise UnpreparedError(
            f"the profile {use.name} needs the module {', '.join(unbuilt)}",
            cause=f"nothing of that name was built for the kernel {kernel}",
            next_step=facts.built_by.format(cell=cell)
            or f"Install it where `quizmatrix kernel show {kernel}` says.",
        )


def check_packages(use: Use, installed: Iterable[str] | None) -> None:
    """Raises UnpreparedError if the base image lacks packages of a profile.

    installed: the packages of the base image; None for the small image.
    """
    missing = [name for name in facts_of(use.name, "the cell").packages if name not in (installed or ())]
    if missing:
        raise UnpreparedError(
            f"the profile {use.name} needs {', '.join(missing)} in the base image",
            cause="the small image has no packages" if installed is None else "the image does not have it",
            next_step="--image debian"
            if installed is None
            else "quizmatrix image build --include " + ",".join(missing),
        )


@functools.cache
def known_by(name: str) -> list[KnownFailure]:
    """The failures of tests that a profile knows. They are read once: a run may have a thousand cells."""
    return facts_of(name, "the cell").known


def forwards_of(use: Use, facts: Facts) -> list[forward.Forward]:
    """The port forwards in the options of a profile, whose facts are given."""
    forwarding = {key for key, option in facts.options.items() if option.type == "forwards"}
    return [one for key, text in use.options if key in forwarding for one in forward.parse(text)]
