"""Expands a matrix to its cells: kernel version x architecture (x variant)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TypeVar

import msgspec

from quizmatrix.core import units
from quizmatrix.core.errors import DataError, UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.core.version import is_unreleased, series_of
from quizmatrix.model import kconfig, named, parameters, profile, suites
from quizmatrix.model.arch import ArchFile, debian_variants, load_arch
from quizmatrix.model.archive import has_kernels_for
from quizmatrix.model.cellid import cell_id, folder_name, matching, parse_cell_id
from quizmatrix.model.finding import SplatPolicy, Tolerance
from quizmatrix.model.known import KnownFailure
from quizmatrix.model.matrix import Include, Limits, Matrix, Variant, shipped_variants
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.profile import Use

V = TypeVar("V", str, int)

# The default base image.
SMALL = "small"

# Default limit of a guest's /shared, in MiB.
SHARED_LIMIT = 4096

DEFAULTS = Limits(
    timeout="20m",
    boot_timeout="30s",
    memory="1G",
    cpus=1,
    numa=1,
    shared_limit=f"{SHARED_LIMIT}M",
    image=SMALL,
    splat=SplatPolicy.FAIL,
)


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a cell's tests, which are split into `of` parts. number: from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        """`2of4`."""
        return f"{self.number}of{self.of}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that tell the command which part to run."""
        return {"QUIZMATRIX_SHARD": str(self.number), "QUIZMATRIX_SHARDS": str(self.of)}


# The kernel of the machine that quizmatrix runs on: a source that can be named alone.
INSTALLED = "installed"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel on one architecture: a field for each setting that a matrix can give it.

    kernel: as the matrix names it.
    source: where the kernel comes from, unless `kernel` names a source itself.
    packages: the files of a kernel that the matrix gives a name (see model/named.py).
    timeout, boot_timeout: seconds, for real hardware.
    memory, shared_limit: MiB.
    image: the name of the base image; include: packages, and sets of packages, that it has to have.
    append: additional kernel parameters.
    numa: the number of NUMA nodes.
    profiles: in the order in which they are set up.
    config: configuration lines that the matrix and the variant add.
    clang: whether the kernel is compiled with clang.
    tolerance: how findings of the kernel are treated.
    shard: the part of its tests that it runs.
    expected: the expected outcome; why: the reason, if that is not `passed`.
    skipped: why it is not run; empty if it is.
    known: failures of single tests that are no news.
    suites: the folders of test suites, by the names of the profiles that run them.
    """

    kernel: str
    source: str
    packages: tuple[str, ...] = ()
    arch: str
    variant: str | None = None
    timeout: float
    boot_timeout: float
    memory: int
    shared_limit: int = SHARED_LIMIT
    cpus: int
    image: str = SMALL
    include: tuple[str, ...] = ()
    append: str = ""
    numa: int = 1
    profiles: tuple[Use, ...] = ()
    config: tuple[str, ...] = ()
    clang: bool = False
    tolerance: Tolerance = Tolerance()
    shard: Shard | None = None
    expected: Outcome = Outcome.PASSED
    why: str = ""
    skipped: str = ""
    known: tuple[KnownFailure, ...] = ()
    suites: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """`KERNEL-ARCH[+VARIANT]`, with `@NofM` at its end if it runs a part of its tests."""
        return self.unsharded + (f"@{self.shard}" if self.shard else "")

    @property
    def unsharded(self) -> str:
        """The id without `@NofM`."""
        return cell_id(self.kernel, self.arch, self.variant)

    @property
    def kernel_spec(self) -> str:
        """`SOURCE:KERNEL`, or INSTALLED; of a kernel with a name, with its files: it needs no matrix then."""
        if self.packages:
            return named.specification(self.kernel, self.packages)
        names_source = ":" in self.kernel or self.kernel == INSTALLED
        return self.kernel if names_source else f"{self.source}:{self.kernel}"

    @property
    def folder(self) -> str:
        """The name of its folder in a run directory."""
        return folder_name(self.id)


def debian_suite(image: str) -> str | None:
    """The suite of a Debian base image (`debian:SUITE`); empty for `debian`, None for any other image."""
    name, _, suite = image.partition(":")
    return suite if name == "debian" else None


def sharded(cells: list[Cell], shards: int) -> list[Cell]:
    """The cells, each split into `shards` cells that run a part of its tests."""
    if shards == 1:
        return cells
    return [
        msgspec.structs.replace(cell, shard=Shard(number=number, of=shards))
        for cell in cells
        for number in range(1, shards + 1)
    ]


def unsharded(cells: list[Cell]) -> list[Cell]:
    """The cells without shards, each once."""
    return list({cell.unsharded: msgspec.structs.replace(cell, shard=None) for cell in cells}.values())


def default_source(kernel: str, *, ready_made: bool) -> str:
    """The source of a kernel that names none.

    ready_made: whether Debian may have it as a binary package. Unreleased kernels come from kernel.org.
    """
    if is_unreleased(kernel):
        return "kernel.org"
    return "debian" if ready_made else "debian-source"


def expand(
    matrix: Matrix, where: str, overrides: Limits | None = None, beneath: Limits = DEFAULTS
) -> list[Cell]:
    """The cells of a matrix: ordered by kernel, then architecture; those of `include` last.

    where: the matrix's name in error messages.
    overrides: limits from the command line, which take precedence over the matrix.
    beneath: limits over which the matrix takes precedence.
    A kernel with a name has cells on the architectures that it has packages for. Raises DataError for an
    unknown architecture or a duplicate cell.
    """
    named.check_arches(matrix.kernel, matrix.kernels, matrix.arches, where)
    wanted: list[tuple[str, str, str | None, list[Limits]]] = [
        (kernel, arch, None, [])
        for kernel in matrix.kernels
        for arch in matrix.arches
        if not any(fnmatchcase(kernel, out.kernel) and fnmatchcase(arch, out.arch) for out in matrix.exclude)
        and not named.lacks(matrix.kernel, kernel, arch)
    ]
    for extra in matrix.include:
        own: list[Limits] = [extra]
        if extra.variant in matrix.variant:
            own.append(matrix.variant[extra.variant])
        wanted.append((extra.kernel, extra.arch, extra.variant, own))
    profiles = profile.resolve(matrix.profiles, matrix.profile, where)
    cells: dict[str, Cell] = {}
    for kernel, arch, variant, own in wanted:
        sources = [overrides or Limits(), *own, matrix.arch.get(arch, Limits()), matrix, beneath, DEFAULTS]
        packages = named.packages_of(matrix.kernel, kernel, arch, variant, where)
        cell = _make_cell(kernel, arch, variant, sources, matrix, where)
        if packages:
            cell = msgspec.structs.replace(cell, source=named.SOURCE, packages=packages)
        own_way = matrix.variant.get(variant or "", Variant())
        config = kconfig.joined(matrix.config, own_way.config)
        cell = msgspec.structs.replace(cell, config=tuple(config), clang=own_way.clang, profiles=profiles)
        if cell.id in cells:
            raise DataError(where, cause=f"the matrix has the cell {cell.id} twice", next_step="Remove one.")
        cells[cell.id] = cell
    if matrix.handoff is not None:
        _check_handoff("from", matrix.handoff.from_, list(cells), where)
        _check_handoff("to", matrix.handoff.to, list(cells), where)
    return list(cells.values())


def _check_handoff(key: str, globs: tuple[str, ...], ids: list[str], where: str) -> None:
    for glob in globs:
        if not matching(ids, glob):
            raise DataError(
                where,
                cause=f"`handoff.{key}`: {glob} fits no cell",
                next_step=f"{did_you_mean(glob, ids, 0.6)} There are: {', '.join(ids)}.".lstrip(),
            )


def _facts_of(arch: str, where: str) -> ArchFile:
    try:
        return load_arch(arch).facts
    except UsageError as error:
        raise DataError(where, cause=error.fact, next_step=error.next_step) from error


def _make_cell(
    kernel: str,
    arch: str,
    variant: str | None,
    sources: list[Limits],
    matrix: Matrix,
    where: str,
) -> Cell:
    facts = _facts_of(arch, where)
    # The path after `SOURCE:` may contain spaces.
    if not kernel or re.search(r"[\x00-\x1f]" if ":" in kernel else r"\s", kernel):
        next_step = 'Write it like "6.1" or "newest".'
        raise DataError(where, cause=f"{kernel!r} is not a kernel", next_step=next_step)

    def first(key: Callable[[Limits], V | None]) -> V:
        return next(value for value in map(key, sources) if value is not None)

    is_flavour = variant is not None and variant not in matrix.variant and variant in debian_variants()
    if is_flavour and (facts.debian is None or variant not in facts.debian.variants):
        raise DataError(where, cause=f"Debian has no variant {variant} of its kernels for {arch}")
    ready_made = is_flavour or not (variant or matrix.config)
    ready_made = (
        ready_made and facts.debian is not None and has_kernels_for(facts.debian.arch, series_of(kernel))
    )
    cell = Cell(
        kernel=kernel,
        source=matrix.source or default_source(kernel, ready_made=ready_made),
        arch=arch,
        variant=variant,
        timeout=units.parse_duration(first(lambda limits: limits.timeout)),
        boot_timeout=units.parse_duration(first(lambda limits: limits.boot_timeout)),
        memory=units.parse_size(first(lambda limits: limits.memory)),
        shared_limit=units.parse_size(first(lambda limits: limits.shared_limit)),
        cpus=first(lambda limits: limits.cpus),
        numa=first(lambda limits: limits.numa),
        image=first(lambda limits: limits.image),
        append=parameters.joined(limits.append for limits in reversed(sources) if limits.append),
        tolerance=Tolerance(
            splat=SplatPolicy(first(lambda limits: limits.splat)), allow=tuple(matrix.allow_splats)
        ),
    )
    if is_flavour and not cell.kernel_spec.startswith("debian:"):
        raise DataError(
            where,
            cause=f"the variant {variant} is one of Debian's own kernels, and {cell.kernel_spec} is not",
            next_step="Name a series that Debian has ready-made, or define the variant in the matrix.",
        )
    return _with_expectation(cell, matrix)


def _with_expectation(cell: Cell, matrix: Matrix) -> Cell:
    tests = tuple(one for one in matrix.known if one.is_for(cell.kernel, cell.arch, cell.variant))
    cell = msgspec.structs.replace(cell, known=tests, suites=suites.of_cell(matrix.suite, cell.arch))
    for known in matrix.expect:
        if (
            fnmatchcase(cell.kernel, known.kernel)
            and fnmatchcase(cell.arch, known.arch)
            and (known.variant is None or fnmatchcase(cell.variant or "", known.variant))
        ):
            return msgspec.structs.replace(cell, expected=known.outcome, why=known.why)
    return cell


def select(
    cells: Iterable[Cell],
    *,
    only: list[str],
    skip: list[str],
    kernels: list[str],
    arches: list[str],
) -> list[Cell]:
    """The cells that match `only`, `kernels` and `arches`, but not `skip`.

    Each is a list of names or globs, of which one has to match; an empty list matches all (`skip`: none).
    """

    def matches(text: str, globs: list[str]) -> bool:
        return any(matching([text], glob) for glob in globs)

    return [
        cell
        for cell in cells
        if (not only or matches(cell.id, only))
        and (not kernels or matches(cell.kernel, kernels))
        and (not arches or matches(cell.arch, arches))
        and not matches(cell.id, skip)
    ]


def cells_on_the_spot(
    only: list[str], overrides: Limits, like: Matrix | None = None, beneath: Limits = DEFAULTS
) -> list[Cell]:
    """Make the cells whose full ids are in `only`, without a matrix; only shipped variants are known.

    like: the matrix that gives their source, profiles and tolerance. beneath: as in `expand`.
    """
    like = like or Matrix()
    made = []
    for text in only:
        parts = parse_cell_id(text)
        if parts is not None and (parts[2] is None or parts[2] in shipped_variants()):
            kernel, arch, variant = parts
            one = Matrix(
                source=like.source,
                config=like.config,
                kernel=like.kernel,
                profiles=like.profiles,
                profile=like.profile,
                splat=like.splat,
                allow_splats=like.allow_splats,
                known=like.known,
                include=[Include(kernel=kernel, arch=arch, variant=variant)],
            )
            made += expand(one, f"--only {text}", overrides, beneath)
    return made
