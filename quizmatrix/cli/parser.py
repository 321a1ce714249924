"""The parser of the whole command line. It imports nothing slow, since --help and completion wait for it."""

from __future__ import annotations

import argparse
import importlib
from typing import NoReturn

from quizmatrix.cli.options import EXIT_STATUSES, Parser, refuse_blanks
from quizmatrix.core.errors import UsageError
from quizmatrix.core.nearest import did_you_mean

_DESCRIPTION = (
    "Run one command on many Linux kernels and architectures at once, each in a throw-away QEMU microVM."
)
_EXAMPLES = """\
examples:
  quizmatrix run quick -- uname -a                  three kernels, two architectures
  quizmatrix run --only 6.1-x86_64 -- ./repro.sh    one cell, like running it here
  quizmatrix run my.toml --only '*-s390x' -- make check
  quizmatrix runs logs latest 6.1-s390x             what a cell printed
"""
# The module of each command, in the order in which --help names them.
_MODULES = {
    "run": "run",
    "shell": "shell",
    "exec": "execute",
    "cp": "cp",
    "debug": "debug",
    "bisect": "bisect",
    "cells": "cells",
    "prepare": "prepare",
    "kernel": "kernel",
    "image": "image",
    "module": "module",
    "zfs": "zfs",
    "doctor": "doctor",
    "runs": "runs",
    "nightly": "nightly",
    "worker": "worker",
    "clean": "clean",
    "completion": "completion",
}


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"quizmatrix {version('quizmatrix')}")
        raise SystemExit(0)


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse a command line. Raises UsageError where it is wrong.

    All words after the first `--` are COMMAND (`args.command`); it is None where there is no `--`.
    """
    head, command = argv, None
    if "--" in argv:
        cut = argv.index("--")
        head, command = argv[:cut], argv[cut + 1 :]
    known = [*_MODULES, "--help", "-h", "--version"]
    if head and head[0] not in known:
        what = "option" if head[0].startswith("-") else "command"
        raise UsageError(
            f"unknown {what} `{head[0]}`",
            next_step=did_you_mean(head[0], known) or f"Known: {', '.join(known)}.",
        )
    whole = parser(head[0] if head and head[0] in _MODULES else None)
    try:
        return _parsed(whole, head, command)
    except UsageError as error:
        # Probably `--` is missing, as in `run uname -a`.
        called = _commands_of(whole).get(head[0]) if head else None
        if command is None and called is not None and called.get_default("takes_command"):
            raise UsageError(error.fact, cause=error.cause, next_step=_after_dashes(error)) from error
        raise


def _after_dashes(error: UsageError) -> str:
    hint = "A command to run comes after `--`"
    return error.next_step if hint in error.next_step else f"{hint}. {error.next_step}".strip()


def _commands_of(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return dict(next(actions).choices)


def _parsed(whole: argparse.ArgumentParser, head: list[str], command: list[str] | None) -> argparse.Namespace:
    args, unknown = whole.parse_known_args(head)
    # argparse takes optional positional arguments only from the words before the first option.
    if args.late and unknown and getattr(args, args.late) is None and not unknown[0].startswith("-"):
        setattr(args, args.late, unknown.pop(0))
    if unknown:
        raise _explain_unknown(unknown[0], args)
    if command is not None and not args.takes_command:
        raise UsageError(
            "only `quizmatrix run`, `nightly install`, `bisect`, `shell` and `exec` take a command after "
            "`--`, and `debug` a script"
        )
    refuse_blanks(args, command)
    args.command = command
    args.arguments = head[1:]
    return args


def _explain_unknown(word: str, args: argparse.Namespace) -> UsageError:
    if not word.startswith("-"):
        return UsageError(
            f"unexpected argument `{word}`",
            next_step="A command to run comes after `--`: quizmatrix run [MATRIX] -- COMMAND"
            if args.name == "run"
            else f"quizmatrix {args.name} --help",
        )
    known = [option for action in args.parser._actions for option in action.option_strings]
    return UsageError(
        f"unknown option {word}",
        next_step=did_you_mean(word.partition("=")[0], known, 0.7) or f"quizmatrix {args.name} --help",
    )


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line, or of one command; then only its module is imported."""
    whole = Parser(prog="quizmatrix", description=_DESCRIPTION, epilog=_EXAMPLES + "\n" + EXIT_STATUSES)
    whole.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _MODULES.items():
        if only in (None, name):
            importlib.import_module(f"quizmatrix.cli.{module}").add_parser(commands)
    return whole
