"""The command `quizmatrix runs` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command, add_reports, number
from quizmatrix.core.errors import UsageError


def add_parser(commands: Commands[Parser]) -> None:
    """Add `runs list|show|logs|compare|prune`."""
    parser = add_command(commands, "runs", list_runs, help="past runs: list, show, logs, compare, prune")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(actions, "list", list_runs, help="the runs that are kept, newest first")
    listing.add_argument("--json", action="store_true", help="as JSON")
    of_show = add_command(actions, "show", show, help="print a run's grid and failures again, or a report")
    of_show.add_argument("--over", metavar="T", help="RUN is a cell's id: show its runs of the last T (30d)")
    of_logs = add_command(actions, "logs", logs, late="cell", help="what a cell printed")
    for action in (of_show, of_logs):
        action.add_argument(
            "run", nargs="?", default="latest", metavar="RUN", help="an id, its beginning, or `latest`"
        )
    group = of_show.add_argument_group("reports, instead of the grid")
    group.add_argument("--json", metavar="FILE", nargs="?", const="-", help="results.json (default: stdout)")
    add_reports(group)
    of_show.add_argument(
        "--tests", action="store_true", help="all tests, not only those that failed or differ"
    )
    of_show.add_argument("--hosts", action="store_true", help="which host ran which cells, and how long")
    of_logs.add_argument("cell", nargs="?", metavar="CELL", help="one cell (default: all)")
    stream = of_logs.add_mutually_exclusive_group()
    stream.add_argument(
        "--stderr",
        dest="stream",
        action="store_const",
        const="stderr",
        help="what its command wrote to stderr",
    )
    stream.add_argument(
        "--console", dest="stream", action="store_const", const="console.log", help="what its kernel printed"
    )
    stream.add_argument(
        "--qemu", dest="stream", action="store_const", const="qemu.log", help="what QEMU printed"
    )
    of_logs.set_defaults(stream="stdout")
    _add_compare_and_prune(actions)


def _add_compare_and_prune(actions: Commands[Parser]) -> None:
    parser = add_command(
        actions,
        "compare",
        compare,
        help="what changed from run A to run B",
        description="What changed from run A to run B: cells, tests in their output, and messages of their "
        "kernels that regressed, are fixed, new, still failing, flaky (another outcome from the same inputs) "
        "or gone. Exit status 1 where something regressed.",
    )
    parser.add_argument(
        "a", nargs="?", metavar="A", help="a run (default: the one before B of the same command and matrix)"
    )
    parser.add_argument("b", nargs="?", metavar="B", help="a run (default: the newest)")
    parser.add_argument("--json", nargs="?", const="-", choices=["-"], help="as JSON")
    parser = add_command(
        actions,
        "prune",
        prune,
        help="remove old run directories",
        description="Remove old run directories, but never the newest, nor one that is being written. With "
        "both --keep and --older-than, a run is removed if it is not among the newest N and is older than T.",
    )
    parser.add_argument("--keep", metavar="N", help="keep the newest N (50, if neither option is given)")
    parser.add_argument("--older-than", metavar="T", help="remove only runs that are older: 30d")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")


def list_runs(args: argparse.Namespace) -> int:
    """Print the kept runs, the newest first."""
    from quizmatrix.report import keptruns

    keptruns.print_list(as_json=args.json)
    return 0


def show(args: argparse.Namespace) -> int:
    """Print a run's grid again, or write its reports; with --over, print how a cell's runs ended."""
    from quizmatrix.model.options import REPORTS, ResultOptions
    from quizmatrix.report import keptruns, outputs

    options = ResultOptions(**{form: getattr(args, form) for form in REPORTS})
    forms = outputs.asked(options)
    if args.over is not None:
        if forms:
            raise UsageError(
                f"--over shows one cell's runs, and --{next(iter(forms))} is a report of one run",
                next_step="Leave one of them out.",
            )
        keptruns.show_cell(args.run, args.over)
    elif forms:
        keptruns.write_reports(args.run, options)
    elif args.hosts:
        keptruns.show_hosts(args.run)
    else:
        keptruns.show(args.run, every_test=args.tests)
    return 0


def logs(args: argparse.Namespace) -> int:
    """Print what a cell wrote."""
    from quizmatrix.report import keptruns

    keptruns.print_logs(args.run, args.cell, args.stream)
    return 0


def compare(args: argparse.Namespace) -> int:
    """Print what changed from run A to run B. Returns exit status 1 where something regressed."""
    from quizmatrix.report.comparing import print_comparison

    return print_comparison(args.a, args.b, as_json=bool(args.json))


def prune(args: argparse.Namespace) -> int:
    """Remove old run directories."""
    from quizmatrix.core.units import checked, parse_duration
    from quizmatrix.report import keptruns

    keep = number("--keep", args.keep)
    older_than = checked("--older-than", args.older_than, parse_duration) if args.older_than else None
    keptruns.prune(keep, older_than, dry_run=args.dry_run)
    return 0
