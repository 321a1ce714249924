"""dkms.conf, as dkms(8) of Debian 12 and 13 reads it: which modules a package has, and how they are built.

It is a shell file, so bash evaluates it (dkms.bash), in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.text import clean_line
from quizmatrix.core.units import format_seconds

NAME = "dkms.conf"

_SCRIPT = Path(__file__).with_name("dkms.bash")

# Seconds, and bytes of what it prints: an honest one takes a moment.
_LIMIT = 60.0
_PRINTS_AT_MOST = 1 << 20
_HEAD = f"head -c {_PRINTS_AT_MOST}"
_BOUNDED = f'{{ {{ "$@" 2>&1 1>&3 3>&- | {_HEAD} >&2; }} 3>&1; }} | {_HEAD}'

# Digits of an index of bash's arrays, and of a number in a version.
_INDEX_DIGITS, _NUMBER_DIGITS = 19, 19

# Directives of which each index describes a module.
_OF_MODULES = ("BUILT_MODULE_NAME", "BUILT_MODULE_LOCATION", "DEST_MODULE_NAME", "DEST_MODULE_LOCATION")

# A module's name. depmod(8) writes it to files in which blanks and colons separate names.
_MODULE_NAME = re.compile(r"[\w.+~-]{1,200}", re.ASCII)

# What a package's name and version may consist of. They become parts of paths that make(1) reads.
_PATH_PART = re.compile(r"\w[\w.+~:-]*", re.ASCII)


class DkmsModule(msgspec.Struct, frozen=True, kw_only=True):
    """A module of a package. built: where MAKE leaves it, relative to the source. name: once installed."""

    built: str
    name: str
    strip: bool


class DkmsConf(msgspec.Struct, frozen=True, kw_only=True):
    """A dkms.conf, evaluated for one kernel.

    values: by directive and index. matches: the indices of a directive whose regular expression matches the
    kernel (BUILD_EXCLUSIVE_ARCH: its architecture). said: what the file printed.
    """

    values: dict[str, dict[int, str]]
    matches: dict[str, set[int]]
    said: str = ""

    def get(self, directive: str) -> str:
        """The value of a directive that is no array; "" where it is not set."""
        return self.values.get(directive, {}).get(0, "")

    @property
    def name(self) -> str:
        """The package's name."""
        return self.get("PACKAGE_NAME")

    @property
    def version(self) -> str:
        """The package's version."""
        return self.get("PACKAGE_VERSION")

    @property
    def depends(self) -> list[str]:
        """The names of packages that have to be built before."""
        return [name for value in self.values.get("BUILD_DEPENDS", {}).values() for name in value.split()]

    @property
    def make(self) -> str:
        """The command that builds the modules; "" where the generic one does.

        It is MAKE[0], unless that has a MAKE_MATCH, and otherwise the last whose MAKE_MATCH fits.
        """
        commands, limited = self.values.get("MAKE", {}), self.values.get("MAKE_MATCH", {})
        fit = self.matches.get("MAKE_MATCH", set())
        chosen = "" if limited.get(0) else commands.get(0, "")
        for index, command in sorted(commands.items()):
            if command and limited.get(index) and index in fit:
                chosen = command
        return chosen

    @property
    def patches(self) -> list[str]:
        """The names of the patches for this kernel, in their order."""
        limited, fit = self.values.get("PATCH_MATCH", {}), self.matches.get("PATCH_MATCH", set())
        return [
            name
            for index, name in sorted(self.values.get("PATCH", {}).items())
            if name and (not limited.get(index) or index in fit)
        ]

    @property
    def modules(self) -> list[DkmsModule]:
        """The modules. Raises UnpreparedError where one has no name."""
        every = sorted({index for directive in _OF_MODULES for index in self.values.get(directive, {})})
        return [self._module(index, is_only=len(every) == 1) for index in every]

    def _module(self, index: int, *, is_only: bool) -> DkmsModule:
        def of(directive: str) -> str:
            return self.values.get(directive, {}).get(index, "")

        built = of("BUILT_MODULE_NAME") or (self.name if is_only else "")
        name = of("DEST_MODULE_NAME") or built
        for directive, value in (("BUILT_MODULE_NAME", built), ("DEST_MODULE_NAME", name)):
            if not _MODULE_NAME.fullmatch(value) or value.endswith((".o", ".ko")):
                raise UnpreparedError(
                    f"{NAME}: {directive}[{index}] is `{clean_line(value)}`, which is no module's name"
                )
        folder = of("BUILT_MODULE_LOCATION").strip("/")
        strip = of("STRIP") or self.get("STRIP")
        return DkmsModule(
            built=f"{folder}/{built}.ko" if folder else f"{built}.ko",
            name=name,
            strip=not strip.lower().startswith("n"),
        )

    def exclusion(self, release: str, config: str) -> str | None:
        """Why the package is not for this kernel; None where it is. config: the text of its configuration."""
        for directive in ("BUILD_EXCLUSIVE_KERNEL", "BUILD_EXCLUSIVE_ARCH"):
            if self.get(directive) and 0 not in self.matches.get(directive, set()):
                # A file that sets it after a check of its own has often said why.
                said = _last_line(self.said)
                return f"{directive} is `{self.get(directive)}`" + (f": {said}" if said else "")
        own = _numbers(release)
        least, most = (self.get(f"BUILD_EXCLUSIVE_KERNEL_{end}") for end in ("MIN", "MAX"))
        if least and own < _numbers(least):
            return f"BUILD_EXCLUSIVE_KERNEL_MIN is {least}"
        if most and own > _numbers(most):
            return f"BUILD_EXCLUSIVE_KERNEL_MAX is {most}"
        for word in self.get("BUILD_EXCLUSIVE_CONFIG").split():
            symbol = word.removeprefix("!")
            has = re.search(rf"^{re.escape(symbol)}=[ym]$", config, re.MULTILINE) is not None
            if has == word.startswith("!"):
                return f"BUILD_EXCLUSIVE_CONFIG has {word}, and this kernel {'has' if has else 'lacks'} it"
        return None

    def check(self) -> None:
        """Raise UnpreparedError where it lacks what every package has to say."""
        for directive, value in (("PACKAGE_NAME", self.name), ("PACKAGE_VERSION", self.version)):
            if not value:
                raise UnpreparedError(f"{NAME} sets no {directive}", cause=_last_line(self.said))
            if not _PATH_PART.fullmatch(value):
                raise UnpreparedError(
                    f"{NAME}: {directive} is `{clean_line(value)}`",
                    cause="it may be a template's placeholder, which packaging replaces",
                )
        if not self.modules:
            raise UnpreparedError(f"{NAME} names no module", next_step='Write BUILT_MODULE_NAME[0]="NAME".')


async def evaluate(
    variables: str,
    command: Callable[[Sequence[str]], list[str]],
    *,
    folder: Path,
    env: Mapping[str, str],
    limit: float = _LIMIT,
) -> DkmsConf:
    """Evaluate the dkms.conf in `folder`.

    variables: shell text that sets dkms's. command: wraps a command line, as Sandbox.command does. limit:
    seconds.
    Raises UnpreparedError where bash cannot read the file, it does not end, or it is incomplete.
    """
    argv = command(["bash", "-c", f"{variables}\n{_SCRIPT.read_text(encoding='utf-8')}"])
    try:
        done = await process.run(["sh", "-c", _BOUNDED, "sh", *argv], cwd=folder, env=env, limit=limit)
    except process.NotEndedError as error:
        cause = f"it had not ended after {format_seconds(limit)}"
        raise UnpreparedError(f"{NAME} could not be evaluated", cause=cause) from error
    said = done.errors.decode(errors="replace")
    conf = _read(done.output, said)
    if conf is None:
        raise UnpreparedError(
            f"{NAME} could not be evaluated",
            cause=_last_line(said) if len(done.errors) < _PRINTS_AT_MOST else "it printed without end",
            next_step="It is a shell file, and has to end without `exit`; `bash -n` checks its syntax.",
        )
    conf.check()
    return conf


def _read(output: bytes, said: str) -> DkmsConf | None:
    """What dkms.bash printed; None where its end is missing."""
    words = output.decode(errors="replace").split("\0")
    values: dict[str, dict[int, str]] = {}
    matches: dict[str, set[int]] = {}
    for directive, index, value in zip(words[::3], words[1::3], words[2::3], strict=False):
        if directive == "end":
            return DkmsConf(values=values, matches=matches, said=said)
        if not index.isdecimal() or len(index) > _INDEX_DIGITS:
            continue  # an associative array, or nothing that bash made
        if directive.startswith("matches "):
            matches.setdefault(directive.removeprefix("matches "), set()).add(int(index))
        else:
            values.setdefault(directive, {})[int(index)] = value
    return None


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return clean_line(lines[-1].strip()) if lines else ""


def _numbers(version: str) -> list[int]:
    """The numbers of a version, for comparison. As dkms has it, 6.12.1 is later than 6.12."""
    return [int(number[:_NUMBER_DIGITS]) for number in re.findall(r"\d+", version)]
