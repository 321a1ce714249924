"""Selects the cells of a run from its options, and the command that each of them runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from quizmatrix.core.errors import UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.kernel import source
from quizmatrix.model import kconfig, named, profile
from quizmatrix.model.arch import load_arch, real_name
from quizmatrix.model.cellid import (
    check_folders,
    is_glob,
    matching,
    parse_cell_id,
    split_shard,
    with_real_arch,
)
from quizmatrix.model.cells import (
    DEFAULTS,
    Cell,
    cells_on_the_spot,
    expand,
    select,
    sharded,
)
from quizmatrix.model.matrix import Handoff, Matrix, find_matrix, load_matrix, shipped_matrices
from quizmatrix.model.options import AUTO, RunOptions, SelectionOptions, with_values
from quizmatrix.model.task import Task, in_each
from quizmatrix.prepare import provided
from quizmatrix.prepare.provided import Provision, Taken

DEFAULT_MATRIX = "default"

# The profile of what --build builds; --build means it, without --no-provide.
BUILT_PROFILE = "zfs"


def words(option: str, given: list[str]) -> list[str]:
    """The words of an option that may be given several times, and may hold several words with commas.

    Raises UsageError where it is given without a word, as from an unset variable: it must not mean all.
    """
    found = list(dict.fromkeys(word.strip() for text in given for word in text.split(",") if word.strip()))
    if given and not found:
        raise UsageError(f"{option} names nothing", next_step="Is a variable in the command line empty?")
    return found


def cell_words(option: str, given: list[str]) -> list[str]:
    """Like `words`, for cell ids and globs, in which `native` stands for this host's architecture."""
    return list(dict.fromkeys(map(with_real_arch, words(option, given))))


def config_lines(*, enable: list[str], disable: list[str], module: list[str]) -> list[str]:
    """The configuration lines that -e, -d and -m ask for. Raises UsageError where they are wrong."""
    keys = [
        f"CONFIG_{name}={value}"
        for value, option, given in (("y", "-e", enable), ("n", "-d", disable), ("m", "-m", module))
        for name in map(_symbol, words(option, given))
    ]
    kconfig.check_fragment("\n".join(keys), "the command line")
    return keys


def _symbol(text: str) -> str:
    name = text.removeprefix("CONFIG_")
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise UsageError(
            f"`{text}` is no symbol of a kernel's configuration",
            next_step="Name it alone, as in -e KASAN; CONFIG_X=value lines go to a matrix, or to --config of "
            "`kernel build`.",
        )
    return name


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The selected cells. matrix: the file. handoff: the matrix's handoff, if it has one.

    left_out: architectures of the matrix on which a named kernel has no cell, since it has no packages there.
    taken: what they got for the command; None where no profile provides it.
    """

    cells: list[Cell]
    matrix: Path
    handoff: Handoff | None = None
    left_out: dict[str, list[str]] = {}
    taken: Taken | None = None


def hands_disks_on(name: str | None) -> bool:
    """Whether a MATRIX has [handoff], and so its own commands; False where there is no such matrix."""
    try:
        return load_matrix(find_matrix(name or DEFAULT_MATRIX)).handoff is not None
    except UsageError:
        return False


def selected_tasks(options: RunOptions, command: list[str] | None) -> tuple[Selection, list[Task]]:
    """The selected cells, and the tasks that run in them. Raises UsageError where there is no command."""
    matrix = options.selection.matrix
    if not command and (_is_program(matrix) or not hands_disks_on(matrix)):
        is_matrix = matrix and (matrix.endswith(".toml") or matrix in shipped_matrices())
        example = f"{matrix} -- uname -a" if is_matrix else f"--only 6.1-x86_64 -- {matrix or 'uname -a'}"
        raise UsageError(
            "there is no command to run", next_step=f"It comes after `--`: quizmatrix run {example}"
        )
    whole = selected_for(options, command)
    return whole, tasks_of(whole, command)


def selected_for(options: RunOptions, command: list[str] | None) -> Selection:
    """Like `selected_slices`, with what the command needs; see prepare/provided.py."""
    typed = selected_slices(options)
    if not command or options.selection.no_provide or typed.handoff is not None:
        return typed
    # The profile that --build means is not one that the user named.
    plain = typed
    if options.conduct.build:
        plain = selected_slices(with_values(options, {"build": False}))
    provision = provided.find(command, plain.cells, options.guest.layer)
    if provision is None:
        return typed
    whole = selected_slices(options, provision)
    cells = provided.completed(provision, whole.cells)
    return msgspec.structs.replace(whole, cells=cells, taken=provided.taken(provision, plain.cells, cells))


def _is_program(word: str | None) -> bool:
    """Whether the word in MATRIX's place is a program, as in `quizmatrix run ./repro.sh`."""
    return (
        word is not None and not word.endswith(".toml") and Path(word).is_file() and os.access(word, os.X_OK)
    )


def tasks_of(chosen: Selection, command: list[str] | None) -> list[Task]:
    """The tasks that run COMMAND in each cell, or those of the matrix's handoff.

    Raises UsageError where the matrix has a handoff and there is also a COMMAND, or --shard.
    """
    if chosen.handoff is None:
        return in_each(chosen.cells, command or [])
    if command:
        raise UsageError(
            f"{chosen.matrix} takes no command",
            cause="it has commands of its own, in [handoff]",
            next_step="Leave out what comes after `--`, or name another matrix.",
        )
    if any(cell.shard for cell in chosen.cells):
        raise UsageError(
            f"--shard deals a COMMAND's tests, and {chosen.matrix} has commands of its own",
            next_step="Leave out --shard.",
        )
    from quizmatrix.model.handoff import handing_on

    return handing_on(chosen.cells, chosen.handoff, str(chosen.matrix))


def selected_slices(options: RunOptions, provision: Provision | None = None) -> Selection:
    """Like `selected`, but with each cell split into slices, if --shard or an id (`6.1-s390x@3of20`) says so.

    `--shard auto` counts as not given: see schedule/slicing.py. Raises UsageError where --shard and ids name
    different numbers of slices, or no slice is left.
    """
    shard = 1 if options.selection.shard == AUTO else options.selection.shard
    only, skip = cell_words("--only", options.selection.only), cell_words("--skip", options.selection.skip)
    named = {pattern: of for pattern in (*only, *skip) if (of := split_shard(pattern)[1])}
    shards = next(iter(named.values()), shard)
    for pattern, of in named.items():
        if of != shards or shard not in (1, of):
            other = f"--shard {shard}" if shard not in (1, of) else next(iter(named))
            raise UsageError(f"{pattern} and {other} deal a cell's tests into different numbers of slices")
    # --skip with a slice is applied below, to slices; without one it is applied to whole cells.
    whole = {
        "only": [split_shard(pattern)[0] for pattern in only],
        "skip": [pattern for pattern in skip if pattern not in named],
    }
    found = selected(with_values(options, whole), provision)
    cells = sharded(found.cells, shards)
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
    """Whether a pattern fits a cell's id, with or without its slice."""
    return bool(matching([cell.id, cell.unsharded], pattern))


def selected_cells(options: RunOptions) -> list[Cell]:
    """The selected cells. Raises the errors of `selected`."""
    return selected(options).cells


def selected(options: RunOptions, provision: Provision | None = None) -> Selection:
    """The cells that the options select, and their matrix. provision: what their command needs.

    Without MATRIX, -k and -a replace the kernels and architectures of the default matrix, and a complete id
    in --only makes that cell even if the matrix does not have it. Raises UsageError where no cell is left, a
    pattern fits none, or a kernel's name is wrong; DataError where the matrix is wrong.
    """
    asked, limits = options.selection, options.limits.as_limits()
    only, skip = cell_words("--only", asked.only), cell_words("--skip", asked.skip)
    kernels = words("--kernels", asked.kernels)
    arches = list(dict.fromkeys(map(real_name, words("--arches", asked.arches))))
    path = find_matrix(asked.matrix or DEFAULT_MATRIX)
    matrix = _with_options(load_matrix(path), asked)
    added = [*(provision.profiles if provision else ())]
    if options.conduct.build and not asked.no_provide:
        added.append(BUILT_PROFILE)
    matrix = msgspec.structs.replace(matrix, profiles=list(dict.fromkeys([*matrix.profiles, *added])))
    beneath = provision.limits if provision else DEFAULTS
    in_file = {*matrix.kernels, *(extra.kernel for extra in matrix.include)}
    if asked.matrix is None and (kernels or arches):
        matrix = _named_on_the_spot(matrix, kernels, arches)
    listed = expand(matrix, str(path), limits, beneath)
    if asked.matrix is None:
        there = {cell.id for cell in listed}
        listed += cells_on_the_spot([text for text in only if text not in there], limits, matrix, beneath)
    if not listed:
        raise UsageError(
            f"{path} has no cells",
            next_step="It needs `kernels` and `arches`, or `include`, and what `exclude` leaves of them.",
        )
    ids = [cell.id for cell in listed]
    for option, patterns, among in (
        ("--only", only, ids),
        ("--skip", skip, ids),
        ("--kernels", kernels, [cell.kernel for cell in listed]),
        ("--arches", arches, [cell.arch for cell in listed]),
    ):
        _check_patterns(option, patterns, list(dict.fromkeys(among)), path)
    chosen = select(listed, only=only, skip=skip, kernels=kernels, arches=arches)
    if not chosen:
        raise UsageError(
            "no cell is left to run",
            cause=f"{path} has {', '.join(cell.id for cell in listed)}",
            next_step="Loosen --only, --skip, -k or -a.",
        )
    check_folders([cell.id for cell in chosen], str(path))
    for cell in chosen:
        _check_kernel(cell, matrix, str(path) if cell.kernel in in_file else "the command line")
    left_out = named.left_out(matrix.kernel, {cell.kernel: None for cell in chosen}, matrix.arches)
    return Selection(cells=chosen, matrix=path, handoff=matrix.handoff, left_out=left_out)


def _with_options(matrix: Matrix, asked: SelectionOptions) -> Matrix:
    """The matrix, with the kernel source, the configuration and the profiles from the options."""
    added = profile.parse_profiles(asked.profiles)
    profile.resolve(added, added, "-p")
    if asked.source is not None:
        source.check_name(asked.source, f"--source {asked.source}")
        matrix = msgspec.structs.replace(matrix, source=asked.source)
    typed = config_lines(enable=asked.enable, disable=asked.disable, module=asked.module)
    return msgspec.structs.replace(
        matrix,
        config=kconfig.joined(matrix.config, typed),
        variant={
            name: msgspec.structs.replace(variant, config=kconfig.joined(variant.config, typed))
            for name, variant in matrix.variant.items()
        },
        profiles=list(dict.fromkeys([*matrix.profiles, *added])),
        profile=matrix.profile
        | {name: {**matrix.profile.get(name, {}), **values} for name, values in added.items()},
    )


def _check_kernel(cell: Cell, matrix: Matrix, place: str) -> None:
    """Raise UsageError where the name of the cell's kernel is wrong, or its configuration cannot be changed.

    place: where it is written.
    """
    try:
        spec = source.parse_spec(cell.kernel_spec)
    except UsageError as error:
        fact = f"{place}: {error.fact}"
        next_step = error.next_step
        if cell.packages:
            fact = f"{place}: the packages of {cell.kernel} for {cell.arch} are not all there"
        elif named.is_name(cell.kernel):
            hint = did_you_mean(cell.kernel, matrix.kernel)
            hint = hint or (
                f"A name is given by [kernel.{cell.kernel}], in {named.own_file()} or in a matrix, which has "
                "to be named, too."
            )
            next_step = f"{hint} {next_step}"
        raise UsageError(fact, cause=error.cause, next_step=next_step) from error
    if cell.config and not source.source_named(spec.source).is_built:
        raise UsageError(
            f"{', '.join(cell.config)} cannot be had of {cell.id}",
            cause=f"{named.shown(spec.text)} comes ready-made, with its configuration",
            next_step="Take a kernel that is built here, such as debian-source:6.12",
        )


def _named_on_the_spot(default: Matrix, kernels: list[str], arches: list[str]) -> Matrix:
    """The default matrix with other kernels or architectures; globs select from its own.

    Its `exclude` is dropped if both are given.
    """

    def taken(given: list[str], own: list[str]) -> list[str]:
        chosen = [matching(own, word) if is_glob(word) else [word] for word in given]
        return list(dict.fromkeys(name for names in chosen for name in names)) or own

    for name in arches:
        if not is_glob(name):
            load_arch(name)
    return msgspec.structs.replace(
        default,
        kernels=taken(kernels, default.kernels),
        arches=taken(arches, default.arches),
        exclude=[] if kernels and arches else default.exclude,
        include=[],
    )


def _check_patterns(option: str, patterns: list[str], among: list[str], path: Path) -> None:
    for pattern in patterns:
        if not matching(among, pattern):
            on_the_spot = ""
            if ":" in pattern and not is_glob(pattern) and parse_cell_id(pattern) is None:
                on_the_spot = (
                    f"A kernel that the matrix lacks is named with its architecture: {pattern}-x86_64."
                )
            hints = [did_you_mean(pattern, among, 0.6), on_the_spot, f"There are: {', '.join(among)}."]
            raise UsageError(
                f"{option} {pattern} fits no cell of {path}", next_step=" ".join(filter(None, hints))
            )
