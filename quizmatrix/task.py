"""What a run is made of: commands in cells, in which order they depend on each other."""

from __future__ import annotations

import msgspec

from quizmatrix.cells import Cell, folder_name


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One command in one VM of a cell. id: what results call it; of an ordinary run the cell's."""

    id: str
    cell: Cell
    command: list[str]

    @property
    def folder(self) -> str:
        """The name of its folder in a run directory."""
        return folder_name(self.id)


def in_each(cells: list[Cell], command: list[str]) -> list[Task]:
    """`command` once in each cell."""
    return [Task(id=cell.id, cell=cell, command=command) for cell in cells]
