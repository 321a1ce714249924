"""The command `quizmatrix nightly` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.guestoptions import add_guest
from quizmatrix.cli.options import (
    Commands,
    Parser,
    add_command,
    add_conduct,
    add_limits,
    add_no_provide,
    add_results,
    add_selection,
    add_sources,
    number,
    run_options,
)
from quizmatrix.cli.run import read_arguments


def add_parser(commands: Commands[Parser]) -> None:
    """Add `nightly install|status|run|remove`."""
    parser = add_command(
        commands, "nightly", status, help="run a command every night: install, status, run, remove"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_install(actions)
    action = add_command(actions, "status", status, help="when each runs next, and how the last night went")
    action.add_argument("job", nargs="?", metavar="NAME", help="one of them (default: all)")
    action.add_argument("--json", action="store_true", help="as JSON")
    action = add_command(actions, "run", run, uses_cache=True, help="run it now, as the timer does")
    action.add_argument("job", metavar="NAME", help="as `nightly status` shows it")
    action = add_command(actions, "remove", remove, help="remove it; the results of its runs stay")
    action.add_argument("job", metavar="NAME", help="as `nightly status` shows it")


def _add_install(actions: Commands[Parser]) -> None:
    parser = add_command(
        actions,
        "install",
        install,
        takes_command=True,
        help="run a command every night, by the user's systemd or cron",
        usage="quizmatrix nightly install [MATRIX] --at HH:MM [OPTION]... -- COMMAND [ARG]...",
        description="Run `quizmatrix run [MATRIX] [OPTION]... --quiet -- COMMAND` every night in this "
        "folder, by a timer of the user's systemd or, without one, by a line in the crontab. It replaces a "
        "nightly run of the same NAME.",
    )
    add_selection(parser)
    _add_own(parser)
    add_limits(parser)
    add_sources(parser)
    add_no_provide(add_conduct(parser))
    add_guest(parser)
    add_results(parser)


def _add_own(parser: Parser) -> None:
    """Add the options of `nightly install` that `run` does not have."""
    group = parser.add_argument_group("when, and for how long")
    group.add_argument("--at", required=True, metavar="HH:MM", help="the local time of day")
    group.add_argument(
        "--name", dest="job_name", metavar="NAME", help="its name (default: the matrix's name)"
    )
    group.add_argument("--keep", metavar="N", help="keep the newest N of its runs, as `runs prune` does")
    group.add_argument("--older-than", metavar="T", help="remove only runs that are older: 30d")
    group.add_argument(
        "--scheduler",
        choices=["auto", "systemd", "cron"],
        default="auto",
        help="what starts it (default: systemd where the user has it, else cron)",
    )


def _arguments_of_run(words: list[str]) -> list[str]:
    """The words of a `nightly install` command line that belong to `run`, unchanged."""
    own = Parser(prog="quizmatrix nightly install", add_help=False, argument_default=argparse.SUPPRESS)
    _add_own(own)
    return own.parse_known_args(words)[1]


def install(args: argparse.Namespace) -> int:
    """Check the command line as `run` does, save it as a job, and install the job."""
    from quizmatrix.core import paths, units
    from quizmatrix.nightly import install as installing
    from quizmatrix.nightly import job as jobs
    from quizmatrix.prepare.selection import DEFAULT_MATRIX

    at = units.checked("--at", args.at, jobs.parse_at)
    matrix = args.matrix or DEFAULT_MATRIX
    name = jobs.check_name(args.job_name) if args.job_name else jobs.name_of(matrix)
    keep = number("--keep", args.keep)
    if args.older_than:
        units.checked("--older-than", args.older_than, units.parse_duration)
    options = run_options(args)
    folder = paths.current_folder()
    vms = installing.check(options, args.command)
    entry, entry_environment = jobs.entry(name)
    job = jobs.Job(
        name=name,
        at=at,
        scheduler=installing.choose_scheduler(args.scheduler),
        arguments=_arguments_of_run(args.arguments[1:]),
        options=options,
        command=args.command,
        folder=str(folder),
        environment=jobs.environment(),
        keep=keep,
        older_than=args.older_than,
        entry=entry,
        entry_environment=entry_environment,
    )
    is_new = installing.install(job)
    installing.say_what_was_installed(job, vms, is_new=is_new)
    return 0


def run(args: argparse.Namespace) -> int:
    """Run one night of a job; returns the exit status of its run."""
    from quizmatrix.cli.signals import watch_signals
    from quizmatrix.nightly import night

    return night.run(args.job, read_arguments, watch_signals)


def status(args: argparse.Namespace) -> int:
    """Print when each job runs next and how its last night went. Returns 1 where one will not run."""
    from quizmatrix.nightly.status import print_status

    return print_status(args.job, as_json=args.json)


def remove(args: argparse.Namespace) -> int:
    """Remove a job."""
    from quizmatrix.nightly.install import remove as remove_job

    remove_job(args.job)
    print(f"{args.job} is not run any more; its runs stay (quizmatrix runs list)")
    return 0
