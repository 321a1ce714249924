"""`quizmatrix runs`: past runs."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from quizmatrix.cli.past import catch_up, show_cell
from quizmatrix.core import streams
from quizmatrix.core.errors import UsageError
from quizmatrix.core.json import to_json
from quizmatrix.core.text import clean_detail, wants_colour
from quizmatrix.model.outcome import EXIT_OK
from quizmatrix.model.result import RunResults
from quizmatrix.report import grid, outputs
from quizmatrix.report.formats.source import load as load_source
from quizmatrix.report.progress import tell
from quizmatrix.runs import directory
from quizmatrix.runs.history.record import History

_CHUNK = 1 << 16


def list_runs(args: argparse.Namespace) -> int:
    """Print the kept runs, the newest first."""
    catch_up(History(tell))
    found = directory.list_runs()
    if args.json:
        readable = [results for _, results in found if results is not None]
        sys.stdout.write(to_json(readable).decode())
        return EXIT_OK
    if not found:
        print(f"There are no runs yet in {directory.runs_dir()}.")
        return EXIT_OK
    from tabulate import tabulate

    rows = [_row(folder, results) for folder, results in found]
    print(tabulate(rows, headers=["run", "started", "exit", "cells", "command"], disable_numparse=True))
    return EXIT_OK


def _row(folder: Path, results: RunResults | None) -> list[str]:
    if results is None:
        return [folder.name, "", "", "its results cannot be read", ""]
    started = datetime.fromisoformat(results.started).astimezone().strftime("%Y-%m-%d %H:%M")
    totals = ", ".join(f"{count} {outcome}" for outcome, count in results.totals.items())
    status = str(results.exit_code) if results.exit_code is not None else "unfinished"
    command = grid.command_words(results)
    return [folder.name, started, status, totals, command[:60] + ("..." if len(command) > 60 else "")]


def show(args: argparse.Namespace) -> int:
    """Print a run's report again, or write it as what was asked for; with --over how a cell's runs ended."""
    if args.over is not None:
        if forms := outputs.asked(args):
            raise UsageError(
                f"--over shows one cell's runs, and --{next(iter(forms))} is a report of one run",
                next_step="Leave one of them out.",
            )
        return show_cell(args)
    folder = directory.find_run(args.run)
    if outputs.asked(args):
        return _write_reports(args, folder)
    results = directory.load(folder)
    print(f"run {results.run}: {grid.command_words(results)}\n")
    if results.finished is None:
        print("The run has not finished, or was killed; what had ended by then:")
        print(f"(to go on with it: quizmatrix run --resume {directory.name_of(folder)})\n")
    if results.cells:
        colour = wants_colour(sys.stdout)
        text = grid.whole(results.cells, folder, results.seconds, colour=colour, every_test=args.tests)
        sys.stdout.write(text)
    return EXIT_OK


def _write_reports(args: argparse.Namespace, folder: Path) -> int:
    outputs.check(args)
    for error in outputs.write(args, load_source(folder)):
        raise error
    return EXIT_OK


def logs(args: argparse.Namespace) -> int:
    """Print what a cell wrote, byte for byte; or what each wrote, with headings as tail(1) has them.

    On a terminal without what that would act on.
    """
    folder = directory.find_run(args.run)
    cells = {result.cell: result for result in directory.load(folder).cells}
    if args.cell is not None and args.cell not in cells:
        raise UsageError(
            f"the run has no cell {args.cell}", next_step=f"It has: {', '.join(cells) or 'none'}."
        )
    if args.cell is not None or len(cells) == 1:
        result = cells[args.cell or next(iter(cells))]
        if not _copy_out(folder / result.folder / args.stream):
            raise UsageError(f"{result.cell} left no {args.stream}", cause=result.detail)
        return EXIT_OK
    for number, result in enumerate(cells.values()):
        print(("\n" if number else "") + f"==> {result.cell} <==", flush=True)
        if not _copy_out(folder / result.folder / args.stream):
            print(f"({result.outcome}: {clean_detail(result.detail)})", flush=True)
    return EXIT_OK


def _copy_out(path: Path) -> bool:
    """Copy a file to stdout; False where there is none."""
    try:
        source = path.open("rb")
    except FileNotFoundError:
        return False
    with source:
        streams.copy(iter(lambda: source.read(_CHUNK), b""))
    return True
