"""`quizmatrix runs`: lists and shows the kept runs, and removes old ones."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from quizmatrix.core import streams
from quizmatrix.core.errors import HistoryError, UsageError
from quizmatrix.core.folders import disk_usage, remove_tree
from quizmatrix.core.json import to_json
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.core.process import printable
from quizmatrix.core.text import clean_detail, clean_line, is_screen, wants_colour
from quizmatrix.core.units import checked, parse_duration
from quizmatrix.model.options import ResultOptions
from quizmatrix.model.result import RunResults
from quizmatrix.report import chart, grid, outputs
from quizmatrix.report.formats.source import load as load_source
from quizmatrix.report.progress import tell
from quizmatrix.report.runhistory import catch_up, sentence
from quizmatrix.runs import directory, retention
from quizmatrix.runs.history.record import History, days_ago

_CHUNK = 1 << 16
_DAY = 86400.0
# How many runs are kept where neither --keep nor --older-than is given.
KEEP = 50
# Days after which `prune` also deletes the history's record of a run.
_REMEMBERED = 400


def print_list(*, as_json: bool) -> None:
    """Print the kept runs, the newest first."""
    catch_up(History(tell))
    found = directory.list_runs()
    if as_json:
        readable = [results for _, results in found if results is not None]
        sys.stdout.write(to_json(readable).decode())
        return
    if not found:
        print(f"There are no runs yet in {directory.runs_dir()}.")
        return
    from tabulate import tabulate

    rows = [_row(folder, results) for folder, results in found]
    print(tabulate(rows, headers=["run", "started", "exit", "cells", "command"], disable_numparse=True))


def _row(folder: Path, results: RunResults | None) -> list[str]:
    if results is None:
        return [folder.name, "", "", "its results cannot be read", ""]
    started = datetime.fromisoformat(results.started).astimezone().strftime("%Y-%m-%d %H:%M")
    totals = ", ".join(f"{count} {outcome}" for outcome, count in results.totals.items())
    status = str(results.exit_code) if results.exit_code is not None else "unfinished"
    command = grid.command_words(results)
    return [folder.name, started, status, totals, command[:60] + ("..." if len(command) > 60 else "")]


def show_hosts(run: str) -> None:
    """Print which host ran which cells of a run."""
    from quizmatrix.report import hosttable

    results = directory.load(directory.find_run(run))
    print(f"run {results.run}: {grid.command_words(results)}\n")
    print(hosttable.table(results.cells, results.seconds))


def show(run: str, *, every_test: bool) -> None:
    """Print a run's report again. every_test: list all tests, not only those that failed or differ."""
    folder = directory.find_run(run)
    results = directory.load(folder)
    print(f"run {results.run}: {grid.command_words(results)}\n")
    if results.finished is None:
        print("The run has not finished, or was killed; what had ended by then:")
        print(f"(to go on with it: quizmatrix run --resume {directory.name_of(folder)})\n")
    if results.cells:
        colour = wants_colour(sys.stdout)
        text = grid.whole(results.cells, folder, results.seconds, colour=colour, every_test=every_test)
        sys.stdout.write(text)


def write_reports(run: str, options: ResultOptions) -> None:
    """Write the reports of a run that `options` asks for. Raises HostError where one cannot be written."""
    folder = directory.find_run(run)
    outputs.check(options)
    for error in outputs.write(options, load_source(folder)):
        raise error


def show_cell(cell: str, over: str) -> None:
    """Print how a cell's recent runs ended, and how long they took. over: for how long back, as `30d`."""
    span = checked("--over", over, parse_duration)
    history = History(tell)
    history.catch_up()
    points = history.points(cell, days_ago(span / _DAY))
    if not points:
        known = history.cells()
        raise UsageError(
            f"no run of a cell {cell} in the last {over}",
            next_step="It ran before that."
            if cell in known
            else did_you_mean(cell, known) or "Name a cell: quizmatrix runs show 6.1-s390x --over 30d",
        )
    command = points[-1].command
    shown = [point for point in points if point.command == command]
    print(f"{cell}, the last {over}: {clean_line(printable(command))}")
    is_terminal = is_screen(sys.stdout) and (sys.stdout.encoding or "").lower().startswith("utf")
    print(chart.draw(shown, colour=wants_colour(sys.stdout), blocks=is_terminal))
    if len(shown) < len(points):
        print(f"{len(points) - len(shown)} more of other commands")


def print_logs(run: str, cell: str | None, stream: str) -> None:
    """Print a guest's output unchanged; that of several, with headings like those of tail(1).

    A cell has several guests where its tests went on in further ones. stream: the name of the file in a
    guest's folder. On a terminal, escape sequences are removed.
    """
    folder = directory.find_run(run)
    cells = {result.cell: result for result in directory.load(folder).cells}
    if cell is not None and cell not in cells:
        raise UsageError(f"the run has no cell {cell}", next_step=f"It has: {', '.join(cells) or 'none'}.")
    chosen = [cells[cell]] if cell is not None else list(cells.values())
    guests = [(result, guest) for result in chosen for guest in ("", *result.further)]
    if len(guests) == 1:
        result = chosen[0]
        if not _copy_out(folder / result.folder / stream):
            raise UsageError(f"{result.cell} left no {stream}", cause=result.detail)
        return
    for number, (result, guest) in enumerate(guests):
        name = f"{result.cell}, {guest}" if guest else result.cell
        print(("\n" if number else "") + f"==> {name} <==", flush=True)
        if not _copy_out(folder / result.folder / guest / stream):
            print(f"({result.outcome}: {clean_detail(result.detail)})", flush=True)


def _copy_out(path: Path) -> bool:
    """Copy a file to stdout; returns False where there is no such file."""
    try:
        source = path.open("rb")
    except FileNotFoundError:
        return False
    with source:
        streams.copy(iter(lambda: source.read(_CHUNK), b""))
    return True


def prune(keep: int | None, older_than: float | None, *, dry_run: bool) -> None:
    """Remove old run directories. The history keeps their records for 400 days.

    keep: how many of the newest runs stay. older_than: seconds; younger runs stay.
    """
    if keep is None:
        keep = KEEP if older_than is None else 1
    history = History(tell)
    catch_up(history)
    removed = freed = 0
    for old in retention.old_runs(keep, days_ago(older_than / _DAY) if older_than is not None else None):
        size = disk_usage(old.folder)
        print(f"{'would remove' if dry_run else 'removing'} {old.folder} ({size / 1e6:.1f} MB)")
        if not dry_run:
            remove_tree(old.folder)
        removed, freed = removed + 1, freed + size
    runs = f"{removed} run{'s' if removed != 1 else ''}"
    print(f"{runs}, {freed / 1e6:.1f} MB {'would be ' if dry_run else ''}freed")
    if not dry_run:
        try:
            history.forget(days_ago(_REMEMBERED))
        except HistoryError as error:
            tell(sentence(error))
