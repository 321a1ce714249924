"""Writes down what drgn reads in a guest's memory. Runs in a process of its own."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import drgn

from quizmatrix.core.json import decode_exactly
from quizmatrix.core.text import clean_line
from quizmatrix.crash import dump
from quizmatrix.crash.memory import KeptMemory, Reading
from quizmatrix.crash.topics import log, openzfs, panic, slab, stacks, stopped

# The sections of a report, in their order.
_TOPICS: dict[str, Callable[[drgn.Program], Iterator[str]]] = {
    "The task in which it died": panic.lines,
    "What the CPUs were running": stacks.of_cpus,
    "OpenZFS's pools": openzfs.lines,
    "All tasks": stacks.of_all_tasks,
    "Slab caches": slab.lines,
    "The end of the kernel's log": log.lines,
}
# Characters of a section.
_LONGEST = 1 << 20
# Bytes that drgn may take (setrlimit(2), RLIMIT_DATA): a guest chooses how long its lists are.
_MOST_MEMORY = 3 << 30


def write(memory: str, target: str) -> Reading:
    """Write the report to a new file. memory: a KeptMemory as JSON."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _MOST_MEMORY if hard == resource.RLIM_INFINITY else min(_MOST_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    known = decode_exactly(memory.encode(), KeptMemory)
    try:
        program = dump.open_dump(known)
    except dump.UnreadableError as error:
        return Reading(failure=str(error))
    tasks = stopped.tasks(program)
    try:
        with Path(target).open("x", encoding="utf-8", errors="replace") as file:
            for title, lines in _TOPICS.items():
                if section := _section(program, lines):
                    file.write(f"{title}\n{'-' * len(title)}\n{section}\n")
    except OSError as error:
        return Reading(tasks=tasks, failure=str(error))
    return Reading(tasks=tasks)


def _section(program: drgn.Program, lines: Callable[[drgn.Program], Iterator[str]]) -> str:
    said: list[str] = []
    size = 0
    try:
        # A guest chooses the names of its tasks.
        for line in map(clean_line, lines(program)):
            size += len(line) + 1
            if size > _LONGEST:
                said.append("... and more")
                break
            said.append(line)
    except Exception as error:  # whatever a guest's memory made drgn stumble over
        said.append(clean_line(f"not read: {error}"))
    return "".join(f"{line}\n" for line in said)
