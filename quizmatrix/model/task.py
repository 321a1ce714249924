"""Tasks: the cells and commands of a run, and which tasks wait for others."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from quizmatrix.model.cellid import folder_name
from quizmatrix.model.cells import Cell
from quizmatrix.model.labels import TaskLabels


class DisksWanted(msgspec.Struct, frozen=True, kw_only=True):
    """The additional disks of a task's guest. size: MiB of each.

    copy_of: the task whose disks are copied. None: new, empty disks.
    """

    count: int
    size: int
    copy_of: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One command in one VM of a cell.

    id: the name in results; in an ordinary run the cell's id.
    after: ids of the tasks that have to pass first.
    labels: how reports group the result; None in an ordinary run.
    disks: in addition to those of the cell.
    """

    id: str
    cell: Cell
    command: list[str]
    after: tuple[str, ...] = ()
    labels: TaskLabels | None = None
    disks: DisksWanted | None = None

    @property
    def folder(self) -> str:
        """The name of its folder in a run directory."""
        return folder_name(self.id)


def in_each(cells: list[Cell], command: list[str]) -> list[Task]:
    """One task for each cell, with the same command."""
    return [Task(id=cell.id, cell=cell, command=command) for cell in cells]


def trial_of(cell: Cell) -> Task:
    """A task that only shows whether the cell's guest works."""
    return Task(id=cell.id, cell=cell, command=["true"])


def with_sources(tasks: list[Task], wanted: Collection[str]) -> frozenset[str]:
    """The ids of the wanted tasks and of all tasks that they depend on, directly or not."""
    after = {task.id: task.after for task in tasks}
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += after.get(one, ())
    return frozenset(found)
