"""Runs commands in a guest that a terminal keeps open, and copies files into and out of it."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from quizmatrix.core.errors import UsageError
from quizmatrix.model.cellid import folder_name
from quizmatrix.runs import directory
from quizmatrix.terminal.attach import Copy, Reply, Request, ask
from quizmatrix.terminal.tty import Terminal


def execute(place: str, command: list[str]) -> int:
    """Run a command in the guest of RUN/CELL; its exit status."""
    terminal = Terminal()
    request = Request(command=command, window=terminal.size(), term=terminal.kind)
    return _ask(place, request, terminal)


def copy(from_: str, to: str) -> int:
    """Copy a file or a folder into an open guest, or out of one: RUN/CELL:/PATH on one of the two sides."""
    source, target = _split(from_), _split(to)
    if (source is None) == (target is None):
        raise UsageError(
            "one of the two has to be in a guest",
            next_step="quizmatrix cp latest/6.1-s390x:/var/log .; quizmatrix cp FILE latest/6.1-s390x:/tmp/",
        )
    place, inside = source or target or ("", "")
    host = Path(to if source else from_).absolute()
    if target is not None and not host.exists():
        raise UsageError(f"there is no {host}")
    return _ask(
        place, Request(copy=Copy(host=str(host), guest=inside, into_guest=target is not None)), Terminal()
    )


def _split(text: str) -> tuple[str, str] | None:
    """RUN/CELL and the path behind its colon; None where `text` is a path here."""
    place, colon, inside = text.partition(":/")
    return (place, f"/{inside}") if colon and "/" in place and not place.startswith(("/", ".")) else None


def folder_of(place: str) -> Path:
    """The folder of RUN/CELL. Raises UsageError where there is none."""
    run, slash, cell = place.rpartition("/")
    if not slash or not cell:
        raise UsageError(f"`{place}` is no RUN/CELL", next_step="latest/6.1-s390x, for example")
    folder = directory.find_run(run) / folder_name(cell)
    if not folder.is_dir():
        raise UsageError(f"the run {run} has no cell {cell}", next_step="quizmatrix runs show")
    return folder


def _ask(place: str, request: Request, terminal: Terminal) -> int:
    folder = folder_of(place)
    reply: Reply = anyio.run(ask, folder, place.rpartition("/")[2], request, terminal)
    if reply.problem:
        print(f"quizmatrix: {place}: {reply.problem}", file=sys.stderr)
    return reply.status
