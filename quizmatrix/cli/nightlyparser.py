"""The words of `quizmatrix nightly`."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import (
    Commands,
    Parser,
    add_command,
    add_conduct,
    add_guest,
    add_limits,
    add_results,
    add_selection,
    add_sources,
)


def add_nightly(commands: Commands[Parser]) -> None:
    """Add `nightly install|status|run|remove`."""
    parser = add_command(
        commands, "nightly", "nightly:status", help="run a command every night: install, status, run, remove"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_install(actions)
    status = add_command(
        actions, "status", "nightly:status", help="when each runs next, and how the last night went"
    )
    status.add_argument("job", nargs="?", metavar="NAME", help="one of them (default: all)")
    status.add_argument("--json", action="store_true", help="as JSON")
    run = add_command(actions, "run", "nightly:run", help="what the timer runs; by hand: now")
    run.add_argument("job", metavar="NAME")
    remove = add_command(actions, "remove", "nightly:remove", help="run it no more; its results stay")
    remove.add_argument("job", metavar="NAME")


def _add_install(actions: Commands[Parser]) -> None:
    parser = add_command(
        actions,
        "install",
        "nightly:install",
        help="have the user's systemd, or cron, run a command every night",
        usage="quizmatrix nightly install [MATRIX] --at HH:MM [OPTION]... -- COMMAND [ARG]...",
        description="Have `quizmatrix run [MATRIX] [OPTION]... --quiet -- COMMAND` run every night in this "
        "folder, by a timer of the user's systemd or, without one, a line in the crontab. One of the same "
        "NAME is replaced.",
    )
    add_selection(parser)
    add_own(parser)
    add_limits(parser)
    add_sources(parser)
    add_conduct(parser)
    add_guest(parser)
    add_results(parser)


def add_own(parser: Parser) -> None:
    """The options of `nightly install` that are none of `run`."""
    group = parser.add_argument_group("when, and for how long")
    group.add_argument("--at", required=True, metavar="HH:MM", help="the time of day, local")
    group.add_argument(
        "--name", dest="job_name", metavar="NAME", help="what it is called (default: as its matrix)"
    )
    group.add_argument("--keep", metavar="N", help="of its runs keep the newest N, as `runs prune` does")
    group.add_argument("--older-than", metavar="T", help="remove only those that are older: 30d")
    group.add_argument(
        "--scheduler",
        choices=["auto", "systemd", "cron"],
        default="auto",
        help="who starts it (default: systemd where the user has one, else cron)",
    )


def arguments_of_run(words: list[str]) -> list[str]:
    """What of the command line of `nightly install` is `run`'s, as it was given."""
    own = Parser(prog="quizmatrix nightly install", add_help=False, argument_default=argparse.SUPPRESS)
    add_own(own)
    return own.parse_known_args(words)[1]
