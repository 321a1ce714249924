"""From MATRIX and the options beside it to the cells that are meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from quizmatrix import cells as cell_module
from quizmatrix.arch import load_arch
from quizmatrix.cells import Cell
from quizmatrix.errors import UsageError
from quizmatrix.kernel import source
from quizmatrix.matrix import Limits, Matrix, check_profiles, find_matrix, load_matrix

V = TypeVar("V")

DEFAULT_MATRIX = "default"


def words(given: list[str]) -> list[str]:
    """The words of an option that may come more than once and hold several, with commas between."""
    return [word.strip() for text in given for word in text.split(",") if word.strip()]


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
    try:
        return Limits(timeout=args.timeout, boot_timeout=args.boot_timeout, memory=args.memory, cpus=cpus)
    except ValueError as error:
        raise UsageError("that limit cannot be set", cause=str(error)) from error


def selected_cells(args: argparse.Namespace, overrides: Limits) -> list[Cell]:
    """The cells that a command line means.

    Without MATRIX, -k and -a take the place of the default matrix's kernels and architectures,
    and an id that --only spells out is made on the spot. Raises UsageError where nothing is left,
    a pattern fits no cell, or a kernel is none; DataError where the matrix is wrong.
    """
    only, skip = words(args.only), words(args.skip)
    kernels, arches = words(args.kernels), words(args.arches)
    for name in arches:
        load_arch(name)
    check_profiles(words(args.profiles), "--profiles")
    path = find_matrix(args.matrix or DEFAULT_MATRIX)
    matrix = load_matrix(path)
    in_file = {*matrix.kernels, *(extra.kernel for extra in matrix.include)}
    if args.matrix is None and (kernels or arches):
        matrix = _named_on_the_spot(matrix, kernels, arches)
        kernels, arches = [], []
    listed = cell_module.expand(matrix, str(path), overrides)
    if args.matrix is None:
        ids = {cell.id for cell in listed}
        listed += cell_module.cells_on_the_spot([text for text in only if text not in ids], overrides)
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            _check_pattern(option, pattern, listed, path)
    chosen = cell_module.select(listed, only=only, skip=skip, kernels=kernels, arches=arches)
    if not chosen:
        raise UsageError(
            "no cell is left to run",
            cause=f"{path} has {', '.join(cell.id for cell in listed) or 'none'}",
            next_step="Loosen --only, --skip, -k or -a.",
        )
    for cell in chosen:
        try:
            source.parse_spec(cell.kernel)
        except UsageError as error:
            place = str(path) if cell.kernel in in_file else "the command line"
            raise UsageError(f"{place}: {error.fact}", next_step=error.next_step) from error
    return chosen


def _named_on_the_spot(default: Matrix, kernels: list[str], arches: list[str]) -> Matrix:
    """The default matrix with other kernels or architectures.

    What it excludes holds unless both are named.
    """
    return msgspec.structs.replace(
        default,
        kernels=list(dict.fromkeys(kernels)) or default.kernels,
        arches=list(dict.fromkeys(arches)) or default.arches,
        exclude=[] if kernels and arches else default.exclude,
        include=[],
    )


def _check_pattern(option: str, pattern: str, listed: list[Cell], path: Path) -> None:
    if cell_module.select(listed, only=[pattern], skip=[], kernels=[], arches=[]):
        return
    ids = [cell.id for cell in listed]
    near = difflib.get_close_matches(pattern, ids, 1, 0.6)
    raise UsageError(
        f"{option} {pattern} fits no cell of {path}",
        next_step=(f"Did you mean `{near[0]}`? " if near else "") + f"Its cells: {', '.join(ids)}.",
    )
