"""`quizmatrix runs`: past runs."""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import datetime
from pathlib import Path

from quizmatrix import report, store
from quizmatrix.errors import UsageError
from quizmatrix.outcome import EXIT_OK
from quizmatrix.process import printable
from quizmatrix.spec import RunResults, to_json
from quizmatrix.text import clean_line, wants_colour


def list_runs(args: argparse.Namespace) -> int:
    """Print the kept runs, the newest first."""
    found = store.list_runs()
    if args.json:
        readable = [results for _, results in found if results is not None]
        sys.stdout.write(to_json(readable).decode())
        return EXIT_OK
    if not found:
        print(f"There are no runs yet in {store.runs_dir()}.")
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
    command = clean_line(printable(results.command))
    return [folder.name, started, status, totals, command[:60] + ("..." if len(command) > 60 else "")]


def show(args: argparse.Namespace) -> int:
    """Print a run's report again."""
    folder = store.find_run(args.run)
    results = store.load(folder)
    if args.json:
        sys.stdout.write(to_json(results).decode())
        return EXIT_OK
    print(f"run {results.run}: {clean_line(printable(results.command))}\n")
    seconds = None
    if results.finished is not None:
        ended, began = (datetime.fromisoformat(text) for text in (results.finished, results.started))
        seconds = (ended - began).total_seconds()
    else:
        print("The run has not finished, or was killed; what had ended by then:\n")
    if results.cells:
        text = report.whole(results.cells, folder, seconds, colour=wants_colour(sys.stdout))
        sys.stdout.write(text)
    return EXIT_OK


def logs(args: argparse.Namespace) -> int:
    """Print what a cell wrote, byte for byte."""
    folder = store.find_run(args.run)
    cells = {result.cell: result for result in store.load(folder).cells}
    if args.cell is None and len(cells) == 1:
        args.cell = next(iter(cells))
    if args.cell not in cells:
        raise UsageError(
            f"the run has no cell {args.cell}" if args.cell else "which cell?",
            next_step=f"quizmatrix runs logs {args.run} CELL, with one of: {', '.join(cells) or 'none'}",
        )
    path = folder / cells[args.cell].folder / args.stream
    try:
        source = path.open("rb")
    except FileNotFoundError as error:
        raise UsageError(
            f"{args.cell} left no {args.stream}", cause="it did not get that far: " + cells[args.cell].detail
        ) from error
    with source:
        shutil.copyfileobj(source, sys.stdout.buffer)
    return EXIT_OK
