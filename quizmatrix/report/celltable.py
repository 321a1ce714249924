"""Prints the cells of a matrix as a table or JSON, and describes the disks that it hands on."""

from __future__ import annotations

import sys

from quizmatrix.core.errors import DamagedError
from quizmatrix.core.json import to_json
from quizmatrix.core.text import clean_line
from quizmatrix.core.units import format_seconds
from quizmatrix.kernel import source
from quizmatrix.kernel.order import options_of
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell
from quizmatrix.model.labels import TaskGroup
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.task import Task


def print_cells(chosen: list[Cell], *, as_json: bool, left_out: dict[str, list[str]] | None = None) -> None:
    """Print the cells as a table with the packages of named kernels below it, or as JSON.

    left_out: the architectures on which a named kernel has no cell.
    """
    if as_json:
        sys.stdout.write(
            to_json(
                [{"cell": cell.id, "cached": cached_release(cell), **_plain(cell)} for cell in chosen]
            ).decode()
        )
        return
    from tabulate import tabulate

    rows = [
        [
            cell.id,
            cached_release(cell) or _how_obtained(cell),
            f"{cell.memory}M",
            cell.cpus,
            format_seconds(cell.timeout),
            "" if cell.expected is Outcome.PASSED else f"{cell.expected}: {cell.why}",
        ]
        for cell in chosen
    ]
    headers = ["cell", "kernel", "memory", "cpus", "timeout", "expected"]
    if not any(row[-1] for row in rows):
        headers.pop()
        rows = [row[:-1] for row in rows]
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    for title, files in {f"{cell.kernel}, {cell.arch}": cell.packages for cell in chosen}.items():
        if files:
            print("\n  ".join([f"\n{title}:", *map(clean_line, files)]))
    for name, arches in (left_out or {}).items():
        print(f"\n{name} has no packages for {', '.join(arches)}, and no cell there.")


def handoff_words(handoff: Handoff, tasks: list[Task]) -> str:
    """Text that says what the handoff does with the disks, and with how many VMs."""
    labels = [task.labels for task in tasks if task.labels is not None]
    writers = dict.fromkeys(one.writer for one in labels)
    readers = dict.fromkeys(one.reader for one in labels if one.reader)
    counts = [f"{sum(one.group is group for one in labels)} {group}" for group in TaskGroup]
    plural = "s" if handoff.disks > 1 else ""
    lines = [
        f"{handoff.disks} disk{plural} of {handoff.size}, written in {', '.join(writers)}:",
        f"    {clean_line(handoff.write)}",
        f"a copy of each writer's, read in {', '.join(readers)}:",
        f"    {clean_line(handoff.read)}",
        *(["and what each of them leaves, read where it was written"] if handoff.back else []),
        f"{len(tasks)} VMs: {', '.join(text for text in counts if not text.startswith('0 '))}",
    ]
    return "\n".join(lines)


def _how_obtained(cell: Cell) -> str:
    """What has to be done for a kernel that is not in the cache."""
    kind, _, wanted = cell.kernel_spec.partition(":")
    found = source.source_named(kind)
    if found.is_built:
        return "to be built"
    return "to be unpacked" if found.is_local(wanted) else "to be fetched"


def _plain(cell: Cell) -> dict[str, object]:
    return {name: getattr(cell, name) for name in cell.__struct_fields__}


def cached_release(cell: Cell) -> str | None:
    """The release of the cell's kernel (`uname -r`); None where the kernel is not in the cache."""
    try:
        kernel = source.find(cell.kernel_spec, load_arch(cell.arch), options_of(cell))
    except DamagedError:
        return None
    return kernel.record.release if kernel else None
