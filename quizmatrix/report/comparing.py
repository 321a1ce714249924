"""`quizmatrix runs compare`: finds the two runs and prints what changed between them."""

from __future__ import annotations

import contextlib
import sys

from quizmatrix.core.errors import HistoryError, QuizmatrixError, UsageError
from quizmatrix.core.json import to_json
from quizmatrix.core.text import wants_colour
from quizmatrix.model.outcome import EXIT_FAILED, EXIT_OK
from quizmatrix.model.result import RunResults
from quizmatrix.report import compare
from quizmatrix.report.grid import command_words
from quizmatrix.report.progress import tell
from quizmatrix.report.runhistory import catch_up
from quizmatrix.runs import directory
from quizmatrix.runs.history import kept
from quizmatrix.runs.history.kept import RecordedRun
from quizmatrix.runs.history.record import History


def print_comparison(a: str | None, b: str | None, *, as_json: bool) -> int:
    """Print what changed from run A to run B. Returns exit status 1 where something regressed, else 0.

    a, b: names of runs. By default, B is the newest run, and A is the run of the same kind before B.
    """
    history = History(tell)
    catch_up(history)
    after = _load(b, history) if b else None
    before = _load(a, history) if a else None
    if after is None or before is None:
        runs = _comparable(history)
        after = after or _newest(runs, history, besides=before)
        before = before or _before(after, runs, history)
    found = compare.compare(before, after)
    if as_json:
        sys.stdout.write(to_json(found).decode())
    else:
        words = [command_words(one.results) or one.results.matrix for one in (before, after)]
        what = words[1] if words[0] == words[1] else " -> ".join(words)
        print(f"{found.before} -> {found.after}: {what}\n")
        print(compare.render(found, colour=wants_colour(sys.stdout)))
    return EXIT_FAILED if found.has_regressed else EXIT_OK


def _comparable(history: History) -> list[RunResults]:
    """The runs that have ended, the newest first. Prints which directories cannot be read."""
    runs = {}
    for folder, results in directory.list_runs():
        if results is None:
            tell(f"{folder} is passed over: its results cannot be read")
        elif results.finished is None:
            tell(f"{folder} is passed over: the run has not finished, or was killed")
        else:
            runs[results.run] = results
    with contextlib.suppress(HistoryError):  # the error was printed before
        runs |= {old.run: old for old in history.runs() if old.finished and old.run not in runs}
    # Terminal sessions have no matrix, and are no tests.
    return sorted((one for one in runs.values() if one.matrix), key=lambda one: one.started, reverse=True)


def _newest(runs: list[RunResults], history: History, besides: RecordedRun | None) -> RecordedRun:
    for one in runs:
        if besides is None or one.run != besides.results.run:
            return _load(one.run, history)
    raise UsageError("there is no run to compare", next_step="quizmatrix runs list")


def _before(after: RecordedRun, runs: list[RunResults], history: History) -> RecordedRun:
    """The run before `after` of the same command, matrix and folder."""
    kind = kept.kind_of(after.results)
    for one in runs:
        if one.started < after.results.started and kept.kind_of(one) == kind:
            return _load(one.run, history)
    raise UsageError(
        f"there is no run to compare {after.results.run} with",
        cause="none before it had the same command, matrix and folder",
        next_step="Name two: quizmatrix runs compare A B (`quizmatrix runs list` has them).",
    )


def _load(name: str, history: History) -> RecordedRun:
    """A run from its directory or, if that is gone, from the history."""
    try:
        return kept.load(directory.find_run(name))
    except QuizmatrixError as error:
        try:
            found = history.find(name) if "/" not in name and name != directory.LATEST else None
        except HistoryError:
            found = None
        if found is not None:
            # The directory is where --output has put it, or was removed.
            return kept.load(found.place) if (found.place / directory.RESULTS).is_file() else found
        raise error
