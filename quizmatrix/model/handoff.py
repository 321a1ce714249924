"""Makes the tasks of a matrix's [handoff]: tasks that read disks wait for the task that writes them."""

from __future__ import annotations

from quizmatrix.core import units
from quizmatrix.core.errors import UsageError
from quizmatrix.model.cellid import check_folders, matching
from quizmatrix.model.cells import Cell
from quizmatrix.model.labels import TaskGroup, TaskLabels
from quizmatrix.model.matrix import Handoff
from quizmatrix.model.task import DisksWanted, Task


def handing_on(cells: list[Cell], handoff: Handoff, where: str) -> list[Task]:
    """The tasks for these cells: first all that write, then all that read, then all that read back.

    where: the matrix's name in errors. Raises UsageError if no cell writes, or if none reads.
    """
    writers = _chosen("from", handoff.from_, cells, where)
    readers = _chosen("to", handoff.to, cells, where)
    size = units.parse_size(handoff.size)

    def task(cell: Cell, labels: TaskLabels, source: str | None = None) -> Task:
        return Task(
            id=labels.id,
            cell=cell,
            command=[handoff.command_of(labels.group)],
            after=(source,) if source is not None else (),
            labels=labels,
            disks=DisksWanted(count=handoff.disks, size=size, copy_of=source),
        )

    def labels(group: TaskGroup, writer: Cell, reader: Cell) -> TaskLabels:
        return TaskLabels(group=group, writer=writer.id, reader=reader.id)

    tasks = [task(writer, TaskLabels(group=TaskGroup.WRITE, writer=writer.id)) for writer in writers]
    pairs = [
        (writer, task(reader, labels(TaskGroup.READ, writer, reader), writer.id))
        for writer in writers
        for reader in readers
    ]
    tasks += [read for _, read in pairs]
    if handoff.back:
        tasks += [task(writer, labels(TaskGroup.BACK, writer, read.cell), read.id) for writer, read in pairs]
    check_folders([task.id for task in tasks], where)
    return tasks


def _chosen(key: str, globs: tuple[str, ...], cells: list[Cell], where: str) -> list[Cell]:
    chosen = [cell for cell in cells if any(matching([cell.id], glob) for glob in globs)]
    if not chosen:
        raise UsageError(
            f"`handoff.{key}` of {where} matches none of the selected cells",
            cause=f"it is {', '.join(globs)}; the selected cells are {', '.join(cell.id for cell in cells)}",
            next_step="Loosen --only, --skip, -k or -a.",
        )
    return chosen
