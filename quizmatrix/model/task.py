"""Tasks: the cells and commands of a run, and which tasks wait for the disks of another."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from quizmatrix.core import units
from quizmatrix.core.errors import UsageError
from quizmatrix.model import cells as cell_module
from quizmatrix.model.cells import Cell, folder_name, matching
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.spec import Handed, Step


class DisksWanted(msgspec.Struct, frozen=True, kw_only=True):
    """The additional disks of a task's guest. size: MiB of each.

    after: the task whose disks are copied; it has to pass first. None: new, empty disks.
    """

    count: int
    size: int
    after: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One command in one VM of a cell.

    id: the name in results; in an ordinary run the cell's id. handed, disks: only if disks are handed on.
    """

    id: str
    cell: Cell
    command: list[str]
    handed: Handed | None = None
    disks: DisksWanted | None = None

    @property
    def folder(self) -> str:
        """The name of its folder in a run directory."""
        return folder_name(self.id)

    @property
    def after(self) -> str | None:
        """The id of the task that has to pass before this one may start."""
        return self.disks.after if self.disks else None


def in_each(cells: list[Cell], command: list[str]) -> list[Task]:
    """`command` once in each cell."""
    return [Task(id=cell.id, cell=cell, command=command) for cell in cells]


def handing_on(cells: list[Cell], handoff: Handoff, where: str) -> list[Task]:
    """The tasks of a matrix's [handoff]: all that write disks, all that read them, all that read them back.

    where: the matrix's name in errors. Raises UsageError if no cell writes, or if none reads.
    """
    writers = _chosen("from", handoff.from_, cells, where)
    readers = _chosen("to", handoff.to, cells, where)
    size = units.parse_size(handoff.size)

    def task(cell: Cell, command: str, handed: Handed, after: str | None = None) -> Task:
        disks = DisksWanted(count=handoff.disks, size=size, after=after)
        return Task(id=handed.id, cell=cell, command=[command], handed=handed, disks=disks)

    tasks = [task(writer, handoff.write, Handed(step=Step.WRITE, written_on=writer.id)) for writer in writers]
    pairs = [
        (writer, task(reader, handoff.read, _handed(Step.READ, writer, reader), writer.id))
        for writer in writers
        for reader in readers
    ]
    tasks += [read for _, read in pairs]
    if handoff.back:
        tasks += [
            task(writer, handoff.read, _handed(Step.BACK, writer, read.cell), read.id)
            for writer, read in pairs
        ]
    cell_module.check_folders([task.id for task in tasks], where)
    return tasks


def _handed(step: Step, writer: Cell, reader: Cell) -> Handed:
    return Handed(step=step, written_on=writer.id, read_on=reader.id)


def _chosen(key: str, globs: tuple[str, ...], cells: list[Cell], where: str) -> list[Cell]:
    chosen = [cell for cell in cells if any(matching([cell.id], glob) for glob in globs)]
    if not chosen:
        raise UsageError(
            f"`handoff.{key}` of {where} fits none of the selected cells",
            cause=f"it is {', '.join(globs)}, and selected are {', '.join(cell.id for cell in cells)}",
            next_step="Loosen --only, --skip, -k or -a.",
        )
    return chosen


def with_sources(tasks: list[Task], wanted: Collection[str]) -> frozenset[str]:
    """The ids of the wanted tasks and of all tasks that they depend on, directly or not."""
    sources = {task.id: task.after for task in tasks}
    found: set[str] = set()
    for one in wanted:
        at: str | None = one
        while at is not None:
            found.add(at)
            at = sources.get(at)
    return frozenset(found)
