"""`quizmatrix runs compare`, `runs prune`, and `runs show CELL --over`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys

from quizmatrix.cli.again import sentence
from quizmatrix.core import units
from quizmatrix.core.errors import HistoryError, QuizmatrixError, UsageError
from quizmatrix.core.folders import disk_usage, remove_tree
from quizmatrix.core.json import to_json
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_line, is_screen, wants_colour
from quizmatrix.model.outcome import EXIT_FAILED, EXIT_OK
from quizmatrix.model.result import RunResults
from quizmatrix.prepare.selection import checked, whole_number
from quizmatrix.report import chart, compare
from quizmatrix.report.grid import command_words
from quizmatrix.report.progress import tell
from quizmatrix.runs import directory, retention
from quizmatrix.runs.history import kept
from quizmatrix.runs.history.kept import RecordedRun
from quizmatrix.runs.history.record import History, days_ago

_DAY = 86400.0
# Runs that are kept where no number and no age is given.
KEEP = 50
# Days after which the record of a run goes too: its directory may be long gone.
_REMEMBERED = 400


def catch_up(history: History) -> None:
    """Record what is in run directories only; what is wrong with the history is only said."""
    try:
        history.catch_up()
    except HistoryError as error:
        tell(sentence(error))


def compare_runs(args: argparse.Namespace) -> int:
    """Print what changed from run A to run B; 1 where something regressed."""
    history = History(tell)
    catch_up(history)
    after = _load(args.b, history) if args.b else None
    before = _load(args.a, history) if args.a else None
    if after is None or before is None:
        runs = _comparable(history)
        after = after or _newest(runs, history, besides=before)
        before = before or _before(after, runs, history)
    found = compare.compare(before, after)
    if args.json:
        sys.stdout.write(to_json(found).decode())
    else:
        words = [command_words(one.results) or one.results.matrix for one in (before, after)]
        what = words[1] if words[0] == words[1] else " -> ".join(words)
        print(f"{found.before} -> {found.after}: {what}\n")
        print(compare.render(found, colour=wants_colour(sys.stdout)))
    return EXIT_FAILED if found.has_regressed else EXIT_OK


def _comparable(history: History) -> list[RunResults]:
    """The runs that have ended, the newest first; directories that cannot be read are named."""
    runs = {}
    for folder, results in directory.list_runs():
        if results is None:
            tell(f"{folder} is passed over: its results cannot be read")
        elif results.finished is None:
            tell(f"{folder} is passed over: the run has not finished, or was killed")
        else:
            runs[results.run] = results
    with contextlib.suppress(HistoryError):  # it has been said
        runs |= {old.run: old for old in history.runs() if old.finished and old.run not in runs}
    # A terminal's sessions are of no matrix, and tell nothing of a test.
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
    """A run, from its directory or, where that is gone, from the history."""
    try:
        return kept.load(directory.find_run(name))
    except QuizmatrixError as error:
        try:
            found = history.find(name) if "/" not in name and name != directory.LATEST else None
        except HistoryError:
            found = None
        if found is not None:
            # --output has put it elsewhere, or it was removed.
            return kept.load(found.place) if (found.place / directory.RESULTS).is_file() else found
        raise error


def prune(args: argparse.Namespace) -> int:
    """Remove old run directories; what the history knows of them stays for a year."""
    keep = checked("--keep", args.keep, whole_number(1)) if args.keep else None
    days = checked("--older-than", args.older_than, units.parse_duration) / _DAY if args.older_than else None
    if keep is None:
        keep = KEEP if days is None else 1
    history = History(tell)
    catch_up(history)
    removed = freed = 0
    for old in retention.old_runs(keep, days_ago(days) if days is not None else None):
        size = disk_usage(old.folder)
        print(f"{'would remove' if args.dry_run else 'removing'} {old.folder} ({size / 1e6:.1f} MB)")
        if not args.dry_run:
            remove_tree(old.folder)
        removed, freed = removed + 1, freed + size
    runs = f"{removed} run{'s' if removed != 1 else ''}"
    print(f"{runs}, {freed / 1e6:.1f} MB {'would be ' if args.dry_run else ''}freed")
    if not args.dry_run:
        try:
            history.forget(days_ago(_REMEMBERED))
        except HistoryError as error:
            tell(sentence(error))
    return EXIT_OK


def show_cell(args: argparse.Namespace) -> int:
    """Print how a cell's runs ended, and how long they took."""
    span = checked("--over", args.over, units.parse_duration)
    history = History(tell)
    history.catch_up()
    points = history.points(args.run, days_ago(span / _DAY))
    if not points:
        known = history.cells()
        near = difflib.get_close_matches(args.run, known, 1, 0.5)
        raise UsageError(
            f"no run of a cell {args.run} in the last {args.over}",
            next_step="It ran before that." if args.run in known else f"Did you mean `{near[0]}`?" if near
            else "Name a cell: quizmatrix runs show 6.1-s390x --over 30d",
        )  # fmt: skip
    command = points[-1].command
    shown = [point for point in points if point.command == command]
    print(f"{args.run}, the last {args.over}: {clean_line(printable(command))}")
    is_terminal = is_screen(sys.stdout) and (sys.stdout.encoding or "").lower().startswith("utf")
    print(chart.draw(shown, colour=wants_colour(sys.stdout), blocks=is_terminal))
    if len(shown) < len(points):
        print(f"{len(points) - len(shown)} more of other commands")
    return EXIT_OK
