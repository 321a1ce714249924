"""Which host ran which cells of a run, for how long: `quizmatrix runs show --hosts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from quizmatrix.core.text import clean_line
from quizmatrix.core.units import format_seconds
from quizmatrix.model.result import CellResult, HostFacts

# What the table calls the host where quizmatrix was typed.
HERE = HostFacts(name="this host")


def rows(cells: Sequence[CellResult], seconds: float | None) -> list[list[str]]:
    """A row for each host, the busiest first. seconds: how long the run took, if it has ended.

    The last column is the part of that time in which the host ran a cell; with several at a time it is more
    than 100%.
    """
    took: Counter[HostFacts] = Counter()
    count: Counter[HostFacts] = Counter()
    accelerators: dict[HostFacts, set[str]] = {}
    for cell in cells:
        if cell.accelerator is None:
            continue  # no guest ran
        host = cell.host or HERE
        took[host] += round(1000 * ((cell.timings.total or 0) - (cell.timings.prepare or 0)))
        count[host] += 1
        accelerators.setdefault(host, set()).add(cell.accelerator)
    return [
        [
            clean_line(host.name),
            clean_line(host.cpu),
            clean_line(host.qemu),
            ", ".join(sorted(accelerators[host])),
            str(count[host]),
            format_seconds(milliseconds / 1000),
            f"{milliseconds / 10 / seconds:.0f}%" if seconds else "",
        ]
        for host, milliseconds in took.most_common()
    ]


def table(cells: Sequence[CellResult], seconds: float | None) -> str:
    """The rows with their headings."""
    from tabulate import tabulate

    headers = ["host", "CPU", "QEMU", "guests by", "cells", "their time", "of the run's"]
    return tabulate(rows(cells, seconds), headers, disable_numparse=True)
