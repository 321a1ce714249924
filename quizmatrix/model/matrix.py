"""The matrix file: kernels, architectures, profiles, limits and expected outcomes."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core import paths, tomlfile, units
from quizmatrix.core.errors import DataError, UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.model import kconfig, named, numa, parameters, profile, suites
from quizmatrix.model.arch import NATIVE, debian_variants, host_arch
from quizmatrix.model.finding import SplatPolicy, check_allowed
from quizmatrix.model.known import KnownFailure
from quizmatrix.model.labels import TaskGroup
from quizmatrix.model.outcome import Outcome

MAX_CPUS = 255
_IMAGE = re.compile(r"small|debian(:[\w.-]+)?")
# MiB. With less, no distribution kernel boots with its initramfs.
MIN_MEMORY = 128
# The largest number of disks in [handoff].
MAX_DISKS = 16


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Limits and settings of a cell. A key that is absent gets its value from a less specific table.

    timeout: of the command, a duration on real hardware.
    boot_timeout: from QEMU's start to the guest's first message, a duration on real hardware.
    memory: of the guest, a size.
    shared_limit: of the files in /shared, a size.
    cpus, numa: number of processors and NUMA nodes.
    image: the base image.
    splat: the effect of a finding.
    append: more kernel parameters. Unlike the other keys, they are added to those of less specific tables.
    """

    timeout: str | None = None
    boot_timeout: str | None = None
    memory: str | None = None
    shared_limit: str | None = None
    cpus: int | None = None
    image: str | None = None
    splat: SplatPolicy | None = None
    append: str | None = None
    numa: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is invalid."""
        for key, text, read in (
            ("timeout", self.timeout, units.parse_duration),
            ("boot-timeout", self.boot_timeout, units.parse_duration),
            ("memory", self.memory, _parse_memory),
            ("shared-limit", self.shared_limit, units.parse_size),
            ("append", self.append, parameters.check),
        ):
            if text is not None:
                try:
                    read(text)
                except ValueError as error:
                    raise ValueError(f"`{key}`: {error}") from error
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise ValueError(f"`image`: unknown image `{self.image}`; known: small, debian, debian:SUITE")
        if self.cpus is not None and not 1 <= self.cpus <= MAX_CPUS:
            raise ValueError(f"`cpus`: has to be 1 to {MAX_CPUS}, not {self.cpus}")
        if self.numa is not None and not 1 <= self.numa <= numa.MAX_NODES:
            raise ValueError(f"`numa`: has to be 1 to {numa.MAX_NODES}, not {self.numa}")


def _parse_memory(text: str) -> int:
    memory = units.parse_size(text)
    if memory < MIN_MEMORY:
        raise ValueError(f"a guest needs at least {MIN_MEMORY}M, not {text}")
    return memory


class Exclude(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cells that a matrix leaves out: those that match all given keys (globs)."""

    kernel: str = "*"
    arch: str = "*"


class Include(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """An additional cell with its own limits; `exclude` does not apply to it."""

    kernel: str
    arch: str
    variant: str | None = None


class Expect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An expected outcome other than `passed`, and the reason. kernel, arch, variant: globs.

    Without `variant` it applies to cells with and without a variant.
    """

    kernel: str = "*"
    arch: str = "*"
    variant: str | None = None
    outcome: Outcome
    why: str


class Configured(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A table that also configures kernels. config: `CONFIG_X=y` lines, for kernels that are built here."""

    config: list[str] = []

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is invalid."""
        Limits.__post_init__(self)
        try:
            kconfig.check_fragment("\n".join(self.config), "config")
        except DataError as error:
            raise ValueError(f"`config`: {error.cause}") from error


class Variant(Configured, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A named way to build a kernel: its configuration, whether to use clang, and limits."""

    clang: bool = False


class Handoff(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """Disks that one cell writes and others read: written in each cell of `from`, then read in each of `to`.

    disks: how many.
    size: of each disk.
    write, read: scripts for the guest's sh.
    from_, to: globs of cell ids.
    back: whether the writing cell then reads the disks that each reader left.
    """

    disks: int = 1
    size: str = "256M"
    write: str
    read: str
    from_: tuple[str, ...] = ("*",)
    to: tuple[str, ...] = ("*",)
    back: bool = False

    def command_of(self, group: TaskGroup) -> str:
        """The script that a task of this group runs."""
        return self.write if group is TaskGroup.WRITE else self.read

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is invalid."""
        if not 1 <= self.disks <= MAX_DISKS:
            raise ValueError(f"`disks`: has to be 1 to {MAX_DISKS}, not {self.disks}")
        try:
            units.parse_size(self.size)
        except ValueError as error:
            raise ValueError(f"`size`: {error}") from error
        for key, command in (("write", self.write), ("read", self.read)):
            if not command.strip():
                raise ValueError(f"`{key}`: there is no command in it")
        for key, globs in (("from", self.from_), ("to", self.to)):
            if not globs:
                raise ValueError(f'`{key}`: names no cell; leave it out for all, or write ["*"]')


class Matrix(Configured, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A matrix file: a field for each of its keys, as its documentation describes them.

    kernel: the packages of kernels with a name; suite: where test suites are. Relative paths are relative to
    the current folder, except in a file. allow_splats: see finding.Tolerance. known: failures of single tests
    that are no news.
    """

    source: str | None = None
    kernels: list[str] = []
    arches: list[str] = []
    profiles: list[str] = []
    exclude: list[Exclude] = []
    include: list[Include] = []
    expect: list[Expect] = []
    known: list[KnownFailure] = []
    arch: dict[str, Limits] = {}
    variant: dict[str, Variant] = {}
    profile: dict[str, dict[str, Any]] = {}
    handoff: Handoff | None = None
    allow_splats: list[str] = []
    kernel: named.NamedKernels = {}
    suite: suites.Suites = {}

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is invalid."""
        Configured.__post_init__(self)
        named.check(self.kernel)
        suites.check(self.suite)
        for text in self.allow_splats:
            try:
                check_allowed(text)
            except ValueError as error:
                raise ValueError(f"`allow-splats`: {error}") from error


def shipped_variants() -> set[str]:
    """The variants that a matrix need not define: those with a shipped fragment, and Debian's own."""
    return {*kconfig.variants(), *debian_variants()}


def shipped_matrices() -> dict[str, Path]:
    """The shipped matrices, by name."""
    return {path.stem: path for path in sorted(paths.data_dir("matrices").glob("*.toml"))}


def find_matrix(name: str) -> Path:
    """The file that MATRIX on a command line names: a path, or the name of a shipped matrix.

    A word with a `/` or ending in `.toml` is a path. One that ships is also `matrices/NAME.toml`, its path in
    quizmatrix's own tree, where the current folder has no such file. Raises UsageError if there is none.
    """
    shipped = shipped_matrices()
    if "/" in name or name.endswith(".toml"):
        path = Path(name)
        if path.is_file():
            return path
        in_own_tree = {Path("matrices", one.name): one for one in shipped.values()}
        if path in in_own_tree and not path.exists():
            return in_own_tree[path]
        raise UsageError(
            f"no matrix file {name}",
            cause="it is a folder" if path.is_dir() else "there is no such file",
            next_step=f"Matrices that ship, by name: {', '.join(shipped)}.",
        )
    if name in shipped:
        return shipped[name]
    raise UsageError(
        f"no matrix named `{name}`",
        next_step=f"{did_you_mean(name, shipped)} Those that ship: {', '.join(shipped)}. ".lstrip()
        + "A file of your own: its path, ending in .toml. A command comes after `--`.",
    )


def _host(matrix: Matrix) -> str | None:
    """This host's architecture; None if it has no file in arch/ but the matrix has other architectures.

    Raises UsageError if the matrix has no other.
    """
    try:
        return host_arch().name
    except UsageError:
        if not {*matrix.arches, *(extra.arch for extra in matrix.include)} - {NATIVE}:
            raise
        return None


def with_native(matrix: Matrix, host: str | None) -> Matrix:
    """A matrix with `native` replaced by the architecture `host`, or removed if `host` is None.

    Duplicates that this would make are removed: an `include` of `native` gives way to an `include` that
    names the host's architecture, and replaces the cell that `kernels` and `arches` make.
    """

    def name(arch: str) -> str:
        return host if arch == NATIVE and host is not None else arch

    replace = msgspec.structs.replace
    written = {(one.kernel, one.arch, one.variant) for one in matrix.include}
    include, exclude = [], [replace(one, arch=name(one.arch)) for one in matrix.exclude]
    for one in matrix.include:
        if one.arch != NATIVE:
            include.append(one)
        elif host is not None and (one.kernel, host, one.variant) not in written:
            include.append(replace(one, arch=host))
            if one.variant is None:
                exclude.append(Exclude(kernel=glob.escape(one.kernel), arch=host))
    limits = {arch: own for arch, own in matrix.arch.items() if arch != NATIVE}
    if host is not None and NATIVE in matrix.arch:
        limits[host] = _over(limits.get(host, Limits()), matrix.arch[NATIVE])
    return replace(
        matrix,
        arches=list(dict.fromkeys(name(arch) for arch in matrix.arches if host or arch != NATIVE)),
        include=include,
        exclude=exclude,
        expect=[replace(one, arch=name(one.arch)) for one in matrix.expect],
        known=[replace(one, arch=name(one.arch)) for one in matrix.known],
        arch=limits,
    )


def _over(limits: Limits, others: Limits) -> Limits:
    """`limits`, with absent keys taken from `others`; kernel parameters of both are joined."""
    both = {key: (getattr(limits, key), getattr(others, key)) for key in Limits.__struct_fields__}
    made = {key: one if one is not None else other for key, (one, other) in both.items()}
    made["append"] = " ".join(filter(None, (others.append, limits.append))) or None
    return Limits(**made)


def load_matrix(path: Path) -> Matrix:
    """Read a matrix file; DataError names the wrong line. The user's named kernels are added to its own."""
    matrix = tomlfile.load(path, Matrix)
    folder = path.absolute().parent
    own = named.with_absolute_paths(matrix.kernel, folder)
    matrix = msgspec.structs.replace(
        matrix,
        kernel={**named.own_kernels(), **own},
        suite=suites.with_absolute_paths(matrix.suite, folder),
    )
    suites.check_profiles(matrix.suite, str(path))
    others: tuple[Include | Exclude | Expect | KnownFailure, ...]
    others = (*matrix.include, *matrix.exclude, *matrix.expect, *matrix.known)
    if NATIVE in (*matrix.arches, *matrix.arch, *(one.arch for one in others)):
        matrix = with_native(matrix, _host(matrix))
    profile.resolve([*matrix.profiles, *matrix.profile], matrix.profile, str(path))
    arches = matrix.arches + [include.arch for include in matrix.include]
    for name in matrix.arch:
        if name not in arches:
            raise DataError(
                str(path),
                cause=f"[arch.{name}] sets limits for an architecture the matrix does not have",
                next_step=f"It has: {', '.join(dict.fromkeys(arches)) or 'none'}.",
            )
    for include in matrix.include:
        if include.variant is not None and include.variant not in (*matrix.variant, *shipped_variants()):
            raise DataError(
                str(path),
                cause=f"include names the variant `{include.variant}`, which is not defined",
                next_step=f'Define it: [variant.{include.variant}] config = ["CONFIG_...=y"].',
            )
    return matrix
