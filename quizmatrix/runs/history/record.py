"""Records each run in the history, and answers questions about earlier runs and cells.

Every method opens the file and closes it, so that no process blocks another for long. Methods raise
HistoryError where the file cannot be used. A damaged file is moved aside and made again from the run
directories.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from quizmatrix.core.errors import HistoryError
from quizmatrix.core.json import encode
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.runs import directory
from quizmatrix.runs.history import database, durations
from quizmatrix.runs.history.database import DamagedHistoryError
from quizmatrix.runs.history.kept import ATTRIBUTABLE, Point, RecordedRun, RunKind, findings_of, why_flaky
from quizmatrix.subtests import reading

T = TypeVar("T")

# How many earlier runs of a cell decide whether it is flaky, and how many give its expected time.
_LAST = 20
_LAST_TIMES = 5
# How many failed tests of one cell are kept. There is a limit, because the guest decides how many there are.
MOST_TESTS = 100_000


class History:
    """The history of runs. Methods raise HistoryError."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """tell: is called with messages, for instance that a damaged history was made again."""
        self._tell = tell

    def record(self, place: Path, results: RunResults) -> None:
        """Record a run; an earlier record of the same run is replaced. place: its directory."""
        # As in results.json, bytes that are no UTF-8 are replaced.
        results = msgspec.json.decode(encode(results), type=RunResults)
        tests = {result.cell: reading.load(place / result.folder) for result in results.cells}
        for cell, found in tests.items():
            if (number := len(_bad(found))) > MOST_TESTS:
                self._tell(
                    f"{cell}: of its {number:,} tests that failed the history keeps {MOST_TESTS:,}: "
                    "the others are known while the run directory is there"
                )

        def keep(connection: sqlite3.Connection) -> None:
            with database.writing(connection):
                _keep(connection, place, results, tests)

        self._do(keep)

    def catch_up(self) -> None:
        """Record all runs that have ended and are not yet recorded, from their directories."""
        self._do(_catch_up)

    def forget(self, before: datetime) -> int:
        """Delete the records of runs that began earlier; returns their number."""

        def forget(connection: sqlite3.Connection) -> int:
            with database.writing(connection):
                gone = connection.execute("DELETE FROM runs WHERE started < ?", [_iso(before)]).rowcount
                durations.forget(connection, _iso(before))
                connection.execute(
                    "DELETE FROM names WHERE key NOT IN (SELECT name FROM subtests) "
                    "AND key NOT IN (SELECT name FROM durations)"
                )
            return gone

        return self._do(forget)

    def runs(self) -> list[RunResults]:
        """All recorded runs, without their cells, the newest first."""
        rows = self._do(lambda connection: connection.execute(f"{_RUNS} ORDER BY started DESC").fetchall())
        return [_run_of(row)[0] for row in rows]

    def find(self, run: str) -> RecordedRun | None:
        """The record of a run. run: its id, or the beginning of only one id."""

        def find(connection: sqlite3.Connection) -> RecordedRun | None:
            rows = connection.execute(f"{_RUNS} WHERE substr(id, 1, ?) = ?", [len(run), run]).fetchall()
            if len(rows) != 1:
                return None
            results, place = _run_of(rows[0])
            query = "SELECT result FROM cells WHERE run = ? ORDER BY key"
            cells = [_decoded(text) for (text,) in connection.execute(query, [results.run])]
            tests: dict[str, dict[str, Subtest]] = {}
            for cell, name, outcome, failed in connection.execute(_TESTS, [results.run]):
                tests.setdefault(cell, {})[name] = Subtest(
                    name=name, outcome=SubtestOutcome(outcome), failed_before=bool(failed)
                )
            return RecordedRun(
                results=msgspec.structs.replace(results, cells=[cell for cell in cells if cell]),
                place=place,
                tests=tests,
                is_complete=False,
            )

        return self._do(find)

    def latest(self, kind: RunKind) -> dict[str, tuple[Path, str, CellResult]]:
        """The newest result of each cell in runs of this kind: its run's directory and id, and the result."""

        def newest(connection: sqlite3.Connection) -> dict[str, tuple[Path, str, CellResult]]:
            found: dict[str, tuple[Path, str, CellResult]] = {}
            query = (
                "SELECT place, id, result FROM cells JOIN runs ON run = id WHERE command = ? AND matrix = ? "
                "AND folder = ? AND earlier = '' ORDER BY started DESC"
            )
            words = [_words(kind.command), _text(kind.matrix), _text(kind.folder)]
            for place, run, text in connection.execute(query, words):
                if (result := _decoded(text)) is not None:
                    found.setdefault(result.cell, (Path(place), run, result))
            return found

        return self._do(newest)

    def expected_seconds(self, cells: Iterable[str], command: list[str]) -> dict[str, float]:
        """Seconds that each of these cells will probably take for `command`, without preparing.

        It is the median of the last few runs; cells that never ran the command are left out.
        """

        from statistics import median  # slow to import

        def expected(connection: sqlite3.Connection) -> dict[str, float]:
            query = (
                "SELECT result FROM cells JOIN runs ON run = id WHERE cell = ? AND command = ? "
                "AND matrix != '' AND earlier = '' ORDER BY started DESC LIMIT ?"
            )
            found = {}
            for cell in cells:
                results = [
                    _decoded(text)
                    for (text,) in connection.execute(query, [_text(cell), _words(command), _LAST_TIMES])
                ]
                times = [
                    result.timings.total - (result.timings.prepare or 0)
                    for result in results
                    if result and result.outcome in ATTRIBUTABLE and result.timings.total is not None
                ]
                if times:
                    found[cell] = median(times)
            return found

        return self._do(expected)

    def test_seconds(self, command: list[str], arch: str) -> dict[str, float]:
        """Seconds that each test of COMMAND's program took last on an architecture, by the test's name."""
        program = durations.program_of(command)
        return self._do(lambda connection: durations.seconds(connection, program, arch))

    def mark_flaky(self, results: list[CellResult]) -> list[CellResult]:
        """The results, with `flaky` set where a cell ended differently before, with the same inputs."""

        def look(connection: sqlite3.Connection) -> list[CellResult]:
            query = (
                "SELECT outcome FROM cells JOIN runs ON run = id WHERE cell = ? AND inputs = ? "
                "AND earlier = '' ORDER BY started DESC LIMIT ?"
            )
            found = []
            for result in results:
                flaky = result.flaky
                if result.inputs and not result.earlier and not flaky:
                    rows = connection.execute(query, [_text(result.cell), result.inputs, _LAST])
                    flaky = why_flaky(result.outcome, [_outcome(outcome) for (outcome,) in rows])
                found.append(msgspec.structs.replace(result, flaky=flaky))
            return found

        return self._do(look)

    def points(self, cell: str, since: datetime) -> list[Point]:
        """The runs of a cell that began since then, the oldest first."""
        query = (
            "SELECT id, started, command, outcome, seconds FROM cells JOIN runs ON run = id WHERE cell = ? "
            "AND earlier = '' AND started >= ? ORDER BY started"
        )
        rows = self._do(lambda connection: connection.execute(query, [cell, _iso(since)]).fetchall())
        return [
            Point(
                run=run,
                started=started,
                command=msgspec.json.decode(command, type=list[str]),
                outcome=_outcome(outcome),
                seconds=seconds,
            )
            for run, started, command, outcome, seconds in rows
        ]

    def cells(self) -> list[str]:
        """The ids of all recorded cells."""
        rows = self._do(lambda connection: connection.execute("SELECT DISTINCT cell FROM cells").fetchall())
        return [cell for (cell,) in rows]

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with database.connected() as connection:
                return action(connection)
        except DamagedHistoryError as error:
            aside = database.move_aside()
            try:
                with database.connected() as connection:
                    found = _catch_up(connection)
                    if aside is not None:
                        self._tell(
                            f"the history was damaged ({error}): it is now {aside}, and was made again "
                            f"from {found} run director{'y' if found == 1 else 'ies'}"
                        )
                    return action(connection)
            except DamagedHistoryError as again:
                raise HistoryError(f"the history {database.path()} is damaged", cause=str(again)) from again


_RUNS = "SELECT id, place, command, matrix, folder, arguments, started, finished, exit_code FROM runs"
_TESTS = (
    "SELECT cells.cell, names.name, subtests.outcome, failed_before FROM subtests "
    "JOIN cells ON subtests.cell = cells.key JOIN names ON subtests.name = names.key WHERE run = ?"
)


def _catch_up(connection: sqlite3.Connection) -> int:
    known = {run for (run,) in connection.execute("SELECT id FROM runs")}
    found = 0
    for place, results in directory.list_runs(besides=known):
        # A run that was killed is recorded with the cells that had ended.
        if results is None or (results.finished is None and directory.is_going_on(place)):
            continue
        tests = {result.cell: reading.load(place / result.folder) for result in results.cells}
        with database.writing(connection):
            _keep(connection, place, results, tests)
        found += 1
    return found


def _bad(tests: list[Subtest]) -> list[Subtest]:
    """The tests that failed, including those that passed when they were run again."""
    return [test for test in tests if test.outcome.is_bad or test.failed_before]


def _keep(
    connection: sqlite3.Connection, place: Path, results: RunResults, tests: dict[str, list[Subtest]]
) -> None:
    connection.execute("DELETE FROM runs WHERE id = ?", [results.run])
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            results.run,
            _text(str(place)),
            _words(results.command),
            results.matrix,
            results.folder,
            _words(results.arguments),
            results.started,
            results.finished,
            results.exit_code,
        ],
    )
    durations.keep(connection, results, tests)
    for result in results.cells:
        key = connection.execute(
            "INSERT INTO cells VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                results.run,
                result.cell,
                result.kernel,
                result.release,
                result.arch,
                result.variant,
                result.outcome,
                result.expected,
                result.exit_code,
                result.detail,
                result.inputs,
                result.earlier,
                result.timings.command,
                encode(result).decode(),
            ],
        ).lastrowid
        bad = _bad(tests[result.cell])[:MOST_TESTS]
        connection.executemany("INSERT OR IGNORE INTO names (name) VALUES (?)", ([test.name] for test in bad))
        connection.executemany(
            "INSERT OR REPLACE INTO subtests SELECT ?, key, ?, ? FROM names WHERE name = ?",
            ([key, test.outcome, test.failed_before, test.name] for test in bad),
        )
        connection.executemany(
            "INSERT INTO findings VALUES (?, ?, ?)",
            ([key, finding.fingerprint, finding.title] for finding in findings_of(result)),
        )


def _run_of(row: tuple[str, str, str, str, str, str, str, str | None, int | None]) -> tuple[RunResults, Path]:
    run, place, command, matrix, folder, arguments, started, finished, exit_code = row
    results = RunResults(
        run=run,
        command=msgspec.json.decode(command, type=list[str]),
        matrix=matrix,
        folder=folder,
        arguments=msgspec.json.decode(arguments, type=list[str]),
        started=started,
        finished=finished,
        exit_code=exit_code,
    )
    return results, Path(place)


def _decoded(text: str) -> CellResult | None:
    """A recorded result; None where a newer quizmatrix wrote it with an outcome that this one lacks."""
    try:
        return msgspec.json.decode(text, type=CellResult)
    except msgspec.MsgspecError:
        return None


def _outcome(text: str) -> Outcome:
    """A recorded outcome. One that only a newer quizmatrix knows counts as skipped."""
    return Outcome(text) if text in set(Outcome) else Outcome.SKIPPED


def _words(words: list[str]) -> str:
    return encode(words).decode()


def _text(text: str) -> str:
    """The text as in results.json: bytes that are no UTF-8 are replaced."""
    return str(msgspec.json.decode(encode(text)))


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def days_ago(days: float) -> datetime:
    """The time so many days before now."""
    return datetime.now(UTC) - timedelta(days=days)
