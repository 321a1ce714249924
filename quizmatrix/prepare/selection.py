"""From MATRIX and the options beside it to the cells that are meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from quizmatrix.core.errors import UsageError
from quizmatrix.kernel import source
from quizmatrix.model import cells as cell_module
from quizmatrix.model import profile
from quizmatrix.model.arch import load_arch, real_name
from quizmatrix.model.cells import Cell, is_glob, matching
from quizmatrix.model.matrix import Handoff, Limits, Matrix, find_matrix, load_matrix

V = TypeVar("V")

DEFAULT_MATRIX = "default"


def words(option: str, given: list[str]) -> list[str]:
    """The words of an option that may come more than once and hold several, with commas between.

    UsageError where it holds none, as with a variable that is not set: that would mean all.
    """
    found = list(dict.fromkeys(word.strip() for text in given for word in text.split(",") if word.strip()))
    if given and not found:
        raise UsageError(f"{option} names nothing", next_step="Is a variable in the command line empty?")
    return found


def cell_words(option: str, given: list[str]) -> list[str]:
    """As `words`, of ids of cells and globs, which may name this host's architecture `native`."""
    return list(dict.fromkeys(map(cell_module.with_real_arch, words(option, given))))


def checked(option: str, text: str, read: Callable[[str], V]) -> V:
    """`text` read by `read`; UsageError names the option where that raises ValueError."""
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}", cause=str(error)) from error


def whole_number(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise ValueError(f"has to be a whole number, {least} or more")
        return int(text)

    return read


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits that the command line sets."""
    cpus = checked("--cpus", args.cpus, whole_number(1)) if args.cpus is not None else None
    numa = checked("--numa", args.numa, whole_number(1)) if args.numa is not None else None
    try:
        return Limits(
            timeout=args.timeout,
            boot_timeout=args.boot_timeout,
            memory=args.memory,
            shared_limit=args.shared_limit,
            cpus=cpus,
            numa=numa,
            image=args.image,
            append=" ".join(args.append) if args.append else None,
        )
    except ValueError as error:
        raise UsageError("that cannot be set", cause=str(error)) from error


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line means. matrix: the file; handoff: its, where the cells hand disks on."""

    cells: list[Cell]
    matrix: Path
    handoff: Handoff | None = None


def hands_disks_on(name: str | None) -> bool:
    """Whether the MATRIX of a command line has commands of its own; not where there is none of this name."""
    try:
        return load_matrix(find_matrix(name or DEFAULT_MATRIX)).handoff is not None
    except UsageError:
        return False


def selected_slices(args: argparse.Namespace, overrides: Limits) -> Selection:
    """As `selected`, with each cell as often as its tests are dealt into slices: by --shard, or as an id
    with a slice says (`6.1-s390x@3of20`). UsageError where they say different numbers, or no slice is left.
    """
    typed = checked("--shard", args.shard, whole_number(1))
    only, skip = cell_words("--only", args.only), cell_words("--skip", args.skip)
    named = {pattern: of for pattern in (*only, *skip) if (of := cell_module.slice_of(pattern)[1])}
    shards = next(iter(named.values()), typed)
    for pattern, of in named.items():
        if of != shards or (typed != 1 and typed != of):
            other = f"--shard {typed}" if typed not in (1, of) else next(iter(named))
            raise UsageError(f"{pattern} and {other} deal a cell's tests into different numbers of slices")
    # A slice is left out below; a cell is where it is named without one.
    whole = {
        "only": [cell_module.slice_of(pattern)[0] for pattern in only],
        "skip": [pattern for pattern in skip if pattern not in named],
    }
    found = selected(argparse.Namespace(**vars(args) | whole), overrides)
    cells = cell_module.sharded(found.cells, shards)
    for pattern in named:
        if not any(_is_meant(cell, pattern) for cell in cells):
            raise UsageError(f"{pattern} fits no slice", cause=f"they are 1of{shards} to {shards}of{shards}")
    cells = [
        cell
        for cell in cells
        if (not only or any(_is_meant(cell, pattern) for pattern in only))
        and not any(_is_meant(cell, pattern) for pattern in skip)
    ]
    if not cells:
        raise UsageError("no cell is left to run", next_step="Loosen --only and --skip.")
    return msgspec.structs.replace(found, cells=cells)


def _is_meant(cell: Cell, pattern: str) -> bool:
    """Whether a pattern fits a cell's id, or what of it is before the slice."""
    return bool(matching([cell.id, cell.unsharded], pattern))


def selected_cells(args: argparse.Namespace, overrides: Limits, *, built_here: bool = False) -> list[Cell]:
    """The cells that a command line means; errors as of `selected`."""
    return selected(args, overrides, built_here=built_here).cells


def selected(args: argparse.Namespace, overrides: Limits, *, built_here: bool = False) -> Selection:
    """The cells that a command line means, and what their matrix does with them.

    Without MATRIX, -k and -a take the place of the default matrix's kernels and architectures,
    and an id that --only spells out is made on the spot. built_here: kernels that name no source are built
    here. Raises UsageError where nothing is left, a pattern fits no cell, or a kernel is none; DataError
    where the matrix is wrong.
    """
    only, skip = cell_words("--only", args.only), cell_words("--skip", args.skip)
    kernels = words("--kernels", args.kernels)
    arches = list(dict.fromkeys(map(real_name, words("--arches", args.arches))))
    added = profile.parse_words(args.profiles)
    profile.resolve(added, added, "-p")
    path = find_matrix(args.matrix or DEFAULT_MATRIX)
    matrix = load_matrix(path)
    if args.source is not None:
        source.check_name(args.source, f"--source {args.source}")
        matrix = msgspec.structs.replace(matrix, source=args.source)
    matrix = msgspec.structs.replace(
        matrix,
        profiles=list(dict.fromkeys([*matrix.profiles, *added])),
        profile=matrix.profile
        | {name: {**matrix.profile.get(name, {}), **options} for name, options in added.items()},
    )
    in_file = {*matrix.kernels, *(extra.kernel for extra in matrix.include)}
    if args.matrix is None and (kernels or arches):
        matrix = _named_on_the_spot(matrix, kernels, arches)
    listed = cell_module.expand(matrix, str(path), overrides, built_here=built_here)
    if args.matrix is None:
        there = {cell.id for cell in listed}
        listed += cell_module.cells_on_the_spot(
            [text for text in only if text not in there], overrides, matrix, built_here=built_here
        )
    ids = [cell.id for cell in listed]
    for option, patterns, among in (
        ("--only", only, ids),
        ("--skip", skip, ids),
        ("--kernels", kernels, [cell.kernel for cell in listed]),
        ("--arches", arches, [cell.arch for cell in listed]),
    ):
        _check_patterns(option, patterns, list(dict.fromkeys(among)), path)
    chosen = cell_module.select(listed, only=only, skip=skip, kernels=kernels, arches=arches)
    if not chosen:
        raise UsageError(
            "no cell is left to run",
            cause=f"{path} has {', '.join(cell.id for cell in listed) or 'none'}",
            next_step="Loosen --only, --skip, -k or -a.",
        )
    cell_module.check_folders([cell.id for cell in chosen], str(path))
    for cell in chosen:
        try:
            source.parse_spec(cell.kernel_spec)
        except UsageError as error:
            place = str(path) if cell.kernel in in_file else "the command line"
            raise UsageError(
                f"{place}: {error.fact}", cause=error.cause, next_step=error.next_step
            ) from error
    return Selection(cells=chosen, matrix=path, handoff=matrix.handoff)


def _named_on_the_spot(default: Matrix, kernels: list[str], arches: list[str]) -> Matrix:
    """The default matrix with other kernels or architectures; globs choose from its own.

    What it excludes holds unless both are named.
    """

    def named(given: list[str], own: list[str]) -> list[str]:
        chosen = [matching(own, word) if is_glob(word) else [word] for word in given]
        return list(dict.fromkeys(name for names in chosen for name in names)) or own

    for name in arches:
        if not is_glob(name):
            load_arch(name)
    return msgspec.structs.replace(
        default,
        kernels=named(kernels, default.kernels),
        arches=named(arches, default.arches),
        exclude=[] if kernels and arches else default.exclude,
        include=[],
    )


def _check_patterns(option: str, patterns: list[str], among: list[str], path: Path) -> None:
    for pattern in patterns:
        if not matching(among, pattern):
            near = difflib.get_close_matches(pattern, among, 1, 0.6)
            raise UsageError(
                f"{option} {pattern} fits no cell of {path}",
                next_step=(f"Did you mean `{near[0]}`? " if near else "") + f"There are: {', '.join(among)}.",
            )
