"""How long single tests took last: in the history by program, architecture and the test's name."""

from __future__ import annotations

import os
import shlex
import sqlite3
from pathlib import Path

from quizmatrix.model.result import RunResults
from quizmatrix.model.subtest import Subtest

# How many tests of one cell are kept with their time. The guest decides how many there are.
MOST = 100_000


def program_of(command: list[str]) -> str:
    """The name of the program that COMMAND starts; of a script of one word, that of its first word.

    Runs of one program with other arguments, such as another part of a suite, share their tests' times.
    """
    try:
        words = shlex.split(command[0]) if len(command) == 1 else command
    except ValueError:
        words = command
    # It need not be UTF-8, which SQLite needs.
    return os.fsencode(Path(words[0]).name).decode(errors="replace") if words else ""


def keep(connection: sqlite3.Connection, results: RunResults, tests: dict[str, list[Subtest]]) -> None:
    """Keep how long the tests of a run took, by cell, except where a newer run is known."""
    program = program_of(results.command)
    for result in results.cells:
        found = tests[result.cell] if not result.earlier else []
        timed = [(test.seconds, test.name) for test in found if test.seconds is not None][:MOST]
        connection.executemany("INSERT OR IGNORE INTO names (name) VALUES (?)", ([name] for _, name in timed))
        connection.executemany(
            "INSERT INTO durations SELECT ?, ?, key, ?, ? FROM names WHERE name = ? "
            "ON CONFLICT DO UPDATE SET seconds = excluded.seconds, started = excluded.started "
            "WHERE excluded.started >= durations.started",
            ([program, result.arch, seconds, results.started, name] for seconds, name in timed),
        )


def seconds(connection: sqlite3.Connection, program: str, arch: str) -> dict[str, float]:
    """Seconds that each known test of a program took last, by name."""
    query = (
        "SELECT names.name, seconds FROM durations JOIN names ON durations.name = names.key "
        "WHERE program = ? AND arch = ? ORDER BY names.name"
    )
    return dict(connection.execute(query, [program, arch]))


def forget(connection: sqlite3.Connection, before: str) -> None:
    """Delete the times from runs that began earlier."""
    connection.execute("DELETE FROM durations WHERE started < ?", [before])
