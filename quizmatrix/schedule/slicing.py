"""Decides into how many slices the tests of each cell are dealt, with `--shard auto`."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import AUTO, RunOptions, with_values
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.selection import selected_for
from quizmatrix.schedule.admission import Admission, Need, host_admission, need_of


def with_number(options: RunOptions, command: list[str] | None) -> RunOptions:
    """The options with a number for `--shard auto`. An id such as `6.1-s390x@3of4` names the number itself.

    command: it may need more memory and CPUs. Raises the errors of selected_for.
    """
    if options.selection.shard != AUTO:
        return options
    cells = [cell for cell in selected_for(options, command).cells if not cell.skipped]
    named = next((cell.shard.of for cell in cells if cell.shard), None)
    if named is None and not cells:
        named = 1
    elif named is None:
        admission = host_admission(options.conduct.jobs, Path())
        asked = None if options.guest.accel == "auto" else Accelerator(options.guest.accel)
        named = slices_of_each(cells, admission, asked)
    return with_values(options, {"shard": named})


def slices_of_each(cells: list[Cell], admission: Admission, asked: Accelerator | None) -> int:
    """How many slices each cell gets, so that all slices of all cells may run at the same time.

    One at least. admission: of the host, while no guest runs. asked: the accelerator that the user chose.
    """
    preparer = Preparer(Policy())
    needs = [need_of(cell, preparer.likely_accelerator(cell, asked)) for cell in cells]
    largest = Need(cpus=max(need.cpus for need in needs), memory=max(need.memory for need in needs))
    return max(1, admission.holds(largest) // len(cells))
