"""Makes disks that are handed from cell to cell: new ones, and copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.errors import HostError


def make_empty(path: Path, size: int) -> None:
    """Make a disk of this many bytes, all of it a hole. Raises OSError."""
    with path.open("wb") as file:
        file.truncate(size)


async def copy(given: Sequence[str], target: Path, *, fact: str, next_step: str = "") -> None:
    """Copy disks into a folder, or one to a file, sharing blocks where the file system can.

    fact, next_step: of the HostError where that fails.
    """
    argv = ["cp", "--reflink=auto", "--sparse=always", "--", *given, str(target)]
    done = await process.run(argv)
    if done.status != 0:
        raise HostError(fact, cause=done.last_words, next_step=next_step)
