"""Kernels with a name: lists of packages by architecture, in a matrix or in the user's `kernels.toml`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import msgspec

from quizmatrix.core import paths, tomlfile
from quizmatrix.core.errors import DataError, UsageError
from quizmatrix.core.version import MASTER, series_of
from quizmatrix.model.arch import NATIVE, load_arch

# The files of each named kernel, by architecture.
NamedKernels = dict[str, dict[str, list[str]]]

# The name of the kernel source that makes kernels of these files.
SOURCE = "named"

# It becomes a part of cell ids, of command lines, and of the names of folders.
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)*", re.ASCII)
_MAX_LENGTH = 64
# What is a kernel without being a version: model/cells.py has the last one, too.
_OTHER_KERNELS = ("newest", MASTER, "installed")

_SCHEME = re.compile(r"(\w+)://")
_URL = re.compile(
    r"(https?://[^\s/?#]+/(?:[^\s?#]*/)?([^\s/?#]+)(?:\?[^\s#]*)?)#sha256=([0-9A-Fa-f]{64})", re.ASCII
)
SUFFIXES = (".deb", ".rpm")
# Characters of the name under which a downloaded file is kept.
_LONGEST = 200


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file to download. name: the file's name, from its address. sha256: the expected hash."""

    url: str
    name: str
    sha256: str


class _NamesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the user's `kernels.toml`. kernel: as in a matrix."""

    kernel: NamedKernels = {}

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is invalid."""
        check(self.kernel)


def is_remote(file: str) -> bool:
    """Whether a file of a named kernel is written as a URL."""
    return _SCHEME.match(file) is not None


def remote(file: str) -> RemoteFile:
    """Parse `URL#sha256=HEX`. Raises ValueError if it is anything else."""
    scheme = _SCHEME.match(file)
    if scheme is not None and scheme[1] not in ("http", "https"):
        raise ValueError(f"{file}: only http and https are fetched, not {scheme[1]}")
    bare = file.partition("#")[0]
    found = _URL.fullmatch(file)
    if found is not None and len(found[2]) > _LONGEST:
        raise ValueError(f"{bare}: its file's name has more than {_LONGEST} characters")
    if found is not None and found[2].endswith(SUFFIXES):
        return RemoteFile(url=found[1], name=found[2], sha256=found[3].lower())
    if found is not None:
        raise ValueError(f"{bare} ends in neither {' nor '.join(SUFFIXES)}: it is no package")
    raise ValueError(
        f"{bare} needs its SHA-256: write {bare}#sha256=HEX, with the 64 digits that its publisher gives, or "
        f"that `curl -L {bare} | sha256sum` prints"
    )


def check(kernels: NamedKernels) -> None:
    """Raise ValueError, "`kernel.NAME.ARCH`: ...", if a name, an architecture or a file is invalid."""
    for name, lists in kernels.items():
        try:
            _check_name(name)
            if not lists:
                raise ValueError('it has no packages; write ARCH = ["FILE", ...] below it')
        except ValueError as error:
            raise ValueError(f"`kernel.{name}`: {error}") from error
        for arch, files in lists.items():
            try:
                _check_files(arch, files)
            except ValueError as error:
                raise ValueError(f"`kernel.{name}.{arch}`: {error}") from error


def is_name(text: str) -> bool:
    """Whether a matrix can give a kernel this name."""
    return _NAME.fullmatch(text) is not None and len(text) <= _MAX_LENGTH and not _is_taken(text)


def _is_taken(text: str) -> bool:
    return bool(series_of(text)) or text in _OTHER_KERNELS


def _check_name(name: str) -> None:
    if _is_taken(name):
        raise ValueError(f"{name} means another kernel already; take a name like el9")
    if not is_name(name):
        raise ValueError(
            f"a name is up to {_MAX_LENGTH} of a-z, A-Z, 0-9, `_`, `-` and single `.`, the first one a letter"
        )


def _check_files(arch: str, files: list[str]) -> None:
    if arch == NATIVE:
        raise ValueError("packages are for one architecture: name it")
    try:
        load_arch(arch)
    except UsageError as error:
        raise ValueError(f"{error.fact}. {error.next_step}") from error
    if not files:
        raise ValueError("the list is empty")
    for file in files:
        if is_remote(file):
            remote(file)
        elif not file.strip() or re.search(r"[\x00-\x1f]", file):
            raise ValueError(f"{file!r} is no file")


def with_absolute_paths(kernels: NamedKernels, folder: Path) -> NamedKernels:
    """The same kernels, with paths relative to `folder` made absolute. `~` stays: it is expanded on use."""

    def absolute(file: str) -> str:
        return file if is_remote(file) or file.startswith("~") else str(folder / file)

    return {
        name: {arch: [absolute(file) for file in files] for arch, files in lists.items()}
        for name, lists in kernels.items()
    }


def own_file() -> Path:
    """The user's file of named kernels, which need not exist."""
    return paths.config_dir() / "kernels.toml"


def own_kernels() -> NamedKernels:
    """The kernels of the user's `kernels.toml`, if there is one. Raises DataError if it is wrong."""
    file = own_file()
    if not file.is_file():
        return {}
    return with_absolute_paths(tomlfile.load(file, _NamesFile).kernel, file.parent)


def lacks(kernels: NamedKernels, name: str, arch: str) -> bool:
    """Whether a kernel has a name, and no packages for an architecture."""
    return name in kernels and arch not in kernels[name]


def packages_of(
    kernels: NamedKernels, name: str, arch: str, variant: str | None, where: str
) -> tuple[str, ...]:
    """The packages of a cell's kernel; none if its name is not one of `kernels`.

    where: the matrix's name in error messages. Raises DataError if the kernel cannot be had for the
    architecture, or as this variant.
    """
    if name not in kernels:
        return ()
    if lacks(kernels, name, arch):
        raise DataError(
            where,
            cause=f"the kernel {name} has no packages for {arch}",
            next_step=f"It has some for {', '.join(kernels[name])}. "
            f"Add a list: [kernel.{name}] {arch} = [...].",
        )
    if variant is not None:
        raise DataError(
            where,
            cause=f"the kernel {name} cannot be had with the variant {variant}",
            next_step="Variants are for kernels that are built here, and its packages are ready-made.",
        )
    return tuple(kernels[name][arch])


def left_out(kernels: NamedKernels, names: Iterable[str], arches: Iterable[str]) -> dict[str, list[str]]:
    """The architectures that each named kernel among `names` has no packages for, and so no cells on."""
    every = list(arches)
    missing = {name: [arch for arch in every if lacks(kernels, name, arch)] for name in names}
    return {name: lacking for name, lacking in missing.items() if lacking}


def check_arches(kernels: NamedKernels, names: Iterable[str], arches: list[str], where: str) -> None:
    """Raise DataError if a named kernel among `names` has packages for none of the architectures.

    where: the matrix's name in error messages.
    """
    for name, lacking in left_out(kernels, names, arches).items():
        if lacking == arches:
            raise DataError(
                where,
                cause=f"the kernel {name} has packages for {', '.join(kernels[name])}, and not for "
                f"{' or '.join(arches)}",
                next_step=f"Add a list to [kernel.{name}], or another architecture to `arches`.",
            )


def specification(name: str, files: Iterable[str]) -> str:
    """The kernel specification `named:NAME=FILES`, which says all by itself. files: one architecture's."""
    return f"{SOURCE}:{name}={shlex.join(files)}"


def split(wanted: str) -> tuple[str, list[str]]:
    """The name and the files of a specification without `named:`. Raises ValueError if it has no files."""
    name, _, files = wanted.partition("=")
    found = shlex.split(files)
    if not found:
        raise ValueError("a named kernel needs the matrix that says what it is")
    return name, found


def shown(spec: str) -> str:
    """A kernel specification for a person: of a kernel with a name, its name."""
    before, _, wanted = spec.partition(":")
    return wanted.partition("=")[0] if before == SOURCE else spec
