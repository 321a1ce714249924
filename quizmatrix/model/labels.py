"""Labels of tasks: the group in which reports show a task, and the cells that its disks come from."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class TaskGroup(StrEnum):
    """What tasks do with disks that are handed on. Reports compare the tasks of a group, in this order.

    write: write them. read: read those of another cell. back: read them again after another cell has.
    """

    WRITE = "write"
    READ = "read"
    BACK = "back"


class GroupWords(msgspec.Struct, frozen=True, kw_only=True):
    """How reports name a group; {writer} and {reader} are replaced by cell ids.

    rows: the title of the table, which has a row for each writer.
    column: the title of a column.
    sentence: the beginning of a sentence about the group.
    not_passed: why tasks that wait for a task of this group do not run.
    about: what a task's cell does.
    """

    rows: str = "written on"
    column: str
    sentence: str = ""
    not_passed: str = "{reader} did not read the disks of {writer}"
    about: str


_WORDS = {
    TaskGroup.WRITE: GroupWords(
        column="write",
        sentence="Writing: ",
        not_passed="{writer} did not write the disks",
        about="whose disks others read",
    ),
    TaskGroup.READ: GroupWords(column="read on {reader}", about="which reads the disks of {writer}"),
    TaskGroup.BACK: GroupWords(
        rows="back on",
        column="from {reader}",
        sentence="Back home: ",
        about="which reads its disks as {reader} left them",
    ),
}


class TaskLabels(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"group": "step", "writer": "written_on", "reader": "read_on"},
):
    """Labels of a task whose disks are handed from cell to cell (the keys of `handoff` in results.json).

    writer, reader: cell ids; reader is None in the group `write`.
    kept: the folder in the run directory with a copy of the disks that a failed task had got.
    """

    group: TaskGroup
    writer: str
    reader: str | None = None
    kept: str | None = None

    @property
    def cells(self) -> list[str]:
        """The ids of the cells that had the disks, in order; the last one is the task's own cell."""
        way = [self.writer, self.reader or "", self.writer]
        return way[: list(TaskGroup).index(self.group) + 1]

    @property
    def id(self) -> str:
        """The task's id: `WRITER`, `WRITER..READER` or `WRITER..READER..WRITER`."""
        return "..".join(self.cells)

    @property
    def words(self) -> GroupWords:
        """The words of the group, with the ids of this task's cells."""
        words = msgspec.structs.asdict(_WORDS[self.group])
        cells = {"writer": self.writer, "reader": self.reader}
        return GroupWords(**{name: text.format(**cells) for name, text in words.items()})

    @property
    def facts(self) -> dict[str, str]:
        """The labels by their names in results.json, without `kept`."""
        known = {"step": self.group, "written_on": self.writer, "read_on": self.reader}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the task's command gets."""
        return {"QUIZMATRIX_HANDOFF": self.group, "QUIZMATRIX_WRITER": self.writer}


def sentence_of(group: TaskGroup | None) -> str:
    """The beginning of a sentence about a group; empty for None."""
    return _WORDS[group].sentence if group is not None else ""
