"""`quizmatrix cells` and `quizmatrix prepare`."""

from __future__ import annotations

import argparse
import sys

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import DamagedError, QuizmatrixError
from quizmatrix.core.json import to_json
from quizmatrix.core.text import clean_line
from quizmatrix.core.units import format_seconds
from quizmatrix.kernel import source
from quizmatrix.kernel.build import options_of
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell
from quizmatrix.model.matrix import Handoff, Limits
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK, Outcome
from quizmatrix.model.spec import Step
from quizmatrix.model.task import Task, handing_on
from quizmatrix.prepare import selection


def cells(args: argparse.Namespace) -> int:
    """Print the cells of a matrix."""
    chosen = selection.selected(args, selection.limits_of(args))
    words = ""
    if chosen.handoff is not None:
        words = handoff_words(chosen.handoff, handing_on(chosen.cells, chosen.handoff, str(chosen.matrix)))
    print_cells(chosen.cells, as_json=args.json)
    if words and not args.json:
        print(f"\n{words}")
    return EXIT_OK


def print_cells(chosen: list[Cell], *, as_json: bool) -> None:
    """The cells as a table, or as JSON."""
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
            cached_release(cell) or _to_be_had(cell),
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


def handoff_words(handoff: Handoff, tasks: list[Task]) -> str:
    """What is done with the disks, and in how many VMs."""
    ways = [task.handed for task in tasks if task.handed is not None]
    writers = dict.fromkeys(way.written_on for way in ways)
    readers = dict.fromkeys(way.read_on for way in ways if way.read_on)
    counts = [f"{sum(way.step is step for way in ways)} {step}" for step in Step]
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


def _to_be_had(cell: Cell) -> str:
    return "to be fetched" if cell.kernel_spec.startswith("debian:") else "to be built"


def _plain(cell: Cell) -> dict[str, object]:
    return {name: getattr(cell, name) for name in cell.__struct_fields__}


def cached_release(cell: Cell) -> str | None:
    """What `uname -r` prints in the cell, where its kernel is in the cache."""
    try:
        kernel = source.find(cell.kernel_spec, load_arch(cell.arch), options_of(cell))
    except DamagedError:
        return None
    return kernel.record.release if kernel else None


def prepare(args: argparse.Namespace) -> int:
    """Fetch and check what the cells need."""
    import anyio

    from quizmatrix.prepare.preparer import Policy, Preparer

    chosen = selection.selected_cells(args, Limits(image=args.image))
    preparer = Preparer(Policy(offline=args.offline, refresh=args.refresh, thorough=True))
    failed: list[str] = []

    async def prepare_one(cell: Cell) -> None:
        def tell(text: str) -> None:
            if not args.quiet:
                print(f"{cell.id}: {text}", flush=True)

        try:
            prepared = await preparer.prepare(cell, tell)
        except QuizmatrixError as error:
            failed.append(cell.id)
            print(f"{cell.id}: {error.render()}", file=sys.stderr, flush=True)
        else:
            tell(f"ready: {prepared.kernel.record.release}")

    async def prepare_all() -> None:
        async with task_group() as group:
            for cell in chosen:
                group.start_soon(prepare_one, cell)

    anyio.run(prepare_all)
    if failed:
        print(f"quizmatrix: {len(failed)} of {len(chosen)} cells are not prepared", file=sys.stderr)
    return EXIT_NO_VERDICT if failed else EXIT_OK
