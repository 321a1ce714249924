"""What a task of a run is labelled with: the group that reports show it in, and whose disks its guest has."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class TaskGroup(StrEnum):
    """Tasks that are compared with each other, in the order of reports: what they do with handed disks."""

    WRITE = "write"
    READ = "read"
    BACK = "back"


class GroupWords(msgspec.Struct, frozen=True, kw_only=True):
    """How reports name a group; {writer} and {reader} stand for ids of cells.

    rows: heads the table that has a row for each writer. column: heads a column of it. sentence: begins a
    sentence on the group. not_passed: why what waits for a task is not run. about: says what a task's cell
    does.
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
    """Labels of a task whose disks go from cell to cell (the keys of `handoff` in results.json).

    writer, reader: ids of cells; the second is None in the group `write`. kept: the folder in the run
    directory that has the disks as a task that failed was given them.
    """

    group: TaskGroup
    writer: str
    reader: str | None = None
    kept: str | None = None

    @property
    def cells(self) -> list[str]:
        """The ids of the cells that have the disks one after the other; the last one is the task's own."""
        way = [self.writer, self.reader or "", self.writer]
        return way[: list(TaskGroup).index(self.group) + 1]

    @property
    def id(self) -> str:
        """The task's id: `WRITER`, `WRITER..READER` or `WRITER..READER..WRITER`."""
        return "..".join(self.cells)

    @property
    def words(self) -> GroupWords:
        """The words of its group, with its own cells."""
        words = msgspec.structs.asdict(_WORDS[self.group])
        cells = {"writer": self.writer, "reader": self.reader}
        return GroupWords(**{name: text.format(**cells) for name, text in words.items()})

    @property
    def facts(self) -> dict[str, str]:
        """Names and values, as results.json has them."""
        known = {"step": self.group, "written_on": self.writer, "read_on": self.reader}
        return {name: value for name, value in known.items() if value is not None}

    @property
    def environment(self) -> dict[str, str]:
        """What the task's command has in its environment."""
        return {"QUIZMATRIX_HANDOFF": self.group, "QUIZMATRIX_WRITER": self.writer}


def sentence_of(group: TaskGroup | None) -> str:
    """What a sentence on a group begins with; nothing where the results have no groups."""
    return _WORDS[group].sentence if group is not None else ""
