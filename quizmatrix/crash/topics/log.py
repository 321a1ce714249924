"""The end of the kernel's log."""

from __future__ import annotations

from collections.abc import Iterator

import drgn
from drgn.helpers.linux.printk import get_dmesg

_MOST_LINES = 200


def lines(program: drgn.Program) -> Iterator[str]:
    """Its last lines."""
    yield from get_dmesg(program).decode(errors="replace").splitlines()[-_MOST_LINES:]
