"""The command line's words. Imports nothing that takes time: `--help` and completion pay for it."""

from __future__ import annotations

import argparse
import difflib
from typing import NoReturn

from quizmatrix.cli.building import add_image, add_kernel, add_module, add_zfs
from quizmatrix.cli.nightlyparser import add_nightly
from quizmatrix.cli.options import (
    Commands,
    Parser,
    add_command,
    add_conduct,
    add_guest,
    add_image_and_profiles,
    add_limits,
    add_reports,
    add_results,
    add_selection,
    add_sources,
    refuse_blanks,
)
from quizmatrix.core.errors import UsageError

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
_EXIT_STATUSES = """\
exit status:
  0     every cell ended as its matrix expects
  N     exactly one cell ran, and its command ended with N (128+n: killed by signal n)
  1     several cells ran and at least one failed; or one cell panicked or splatted
  124   exactly one cell ran, and it timed out
  125   no verdict: a wrong command line or matrix, or a cell that could not be tested
  130   interrupted
"""
# The commands that run one of the user's, which comes after `--`.
_RUNNING = ("run", "bisect", "shell", "exec")
# Handlers of what takes a command after `--`.
_WITH_COMMAND = ("run:run", "nightly:install", "bisect:bisect", "shell:shell", "visits:execute")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"quizmatrix {version('quizmatrix')}")
        raise SystemExit(0)


def parse(argv: list[str]) -> argparse.Namespace:
    """Read a command line; UsageError says what is wrong with it.

    Everything behind the first `--` is COMMAND (`args.command`), or None where there is no `--`.
    """
    head, command = argv, None
    if "--" in argv:
        cut = argv.index("--")
        head, command = argv[:cut], argv[cut + 1 :]
    parser, commands = build_parser()
    known = [*commands, "--help", "-h", "--version"]
    if head and head[0] not in known:
        what = "option" if head[0].startswith("-") else "command"
        near = difflib.get_close_matches(head[0], known, 1, 0.5)
        raise UsageError(
            f"unknown {what} `{head[0]}`",
            next_step=f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(known)}.",
        )
    try:
        return _parsed(parser, head, command)
    except UsageError as error:
        # `run uname -a`: its words are taken for ours.
        if command is None and head and head[0] in _RUNNING:
            raise UsageError(error.fact, cause=error.cause, next_step=_after_dashes(error)) from error
        raise


def _after_dashes(error: UsageError) -> str:
    hint = "A command to run comes after `--`"
    return error.next_step if hint in error.next_step else f"{hint}. {error.next_step}".strip()


def _parsed(
    parser: argparse.ArgumentParser, head: list[str], command: list[str] | None
) -> argparse.Namespace:
    args, unknown = parser.parse_known_args(head)
    # argparse fills an optional word behind another from what stands before the first option.
    late = {"runs:logs": "cell", "module:build": "matrix"}.get(args.handler)
    if late and unknown and getattr(args, late) is None and not unknown[0].startswith("-"):
        setattr(args, late, unknown.pop(0))
    if unknown:
        raise _explain_unknown(unknown[0], args)
    if command is not None and args.handler not in _WITH_COMMAND:
        raise UsageError(
            "only `quizmatrix run`, `nightly install`, `bisect`, `shell` and `exec` take a command after `--`"
        )
    refuse_blanks(args, command)
    args.command = command
    args.arguments = head[1:]
    return args


def typed(args: argparse.Namespace) -> frozenset[str]:
    """The names of those attributes of a command line that were typed, also where that is their default."""
    head, _ = build_parser()
    _leave_out_defaults(head)
    found, _ = head.parse_known_args([args.name.split()[0], *args.arguments])
    return frozenset(vars(found))


def _leave_out_defaults(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _leave_out_defaults(command)
        else:
            action.default = argparse.SUPPRESS
    parser._defaults.clear()


def _explain_unknown(word: str, args: argparse.Namespace) -> UsageError:
    if not word.startswith("-"):
        return UsageError(
            f"unexpected argument `{word}`",
            next_step="A command to run comes after `--`: quizmatrix run [MATRIX] -- COMMAND"
            if args.handler == "run:run"
            else f"quizmatrix {args.name} --help",
        )
    known = [option for action in args.parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(word.partition("=")[0], known, 1, 0.7)
    return UsageError(
        f"unknown option {word}",
        next_step=f"Did you mean `{near[0]}`?" if near else f"quizmatrix {args.name} --help",
    )


def build_parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The whole command line, and the names of its commands."""
    parser = Parser(prog="quizmatrix", description=_DESCRIPTION, epilog=_EXAMPLES + "\n" + _EXIT_STATUSES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_shell(commands)
    _add_visits(commands)
    _add_bisect(commands)
    _add_cells(commands)
    _add_prepare(commands)
    add_kernel(commands)
    add_image(commands)
    add_module(commands)
    add_zfs(commands)
    _add_doctor(commands)
    _add_runs(commands)
    add_nightly(commands)
    _add_clean(commands)
    _add_completion(commands)
    return parser, list(commands.choices)


def _add_run(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "run",
        "run:run",
        help="run a command in every cell of a matrix",
        usage="quizmatrix run [MATRIX] [OPTION]... -- COMMAND [ARG]...\n"
        "       quizmatrix run handoff [OPTION]...\n"
        "       quizmatrix run --resume RUN [OPTION]...",
        description="Run COMMAND in every cell of MATRIX and print a grid of what happened. One word is a "
        "script for the guest's sh; among several, && || and | are the shell's. One single cell behaves like "
        "running COMMAND here. A matrix with [handoff], such as `handoff`, has its own commands and takes "
        "none: what they write on disks in one cell they read in the others.",
        epilog=_EXIT_STATUSES,
    )
    add_selection(parser)
    add_limits(parser)
    add_sources(parser)
    group = add_conduct(parser)
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--last-failed",
        action="store_true",
        help="only the cells that failed last with this command, all where none did; without COMMAND: the "
        "last run here again",
    )
    which.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run that was cut short: what had not ended is run, into its directory",
    )
    which.add_argument("--failed-first", action="store_true", help="all cells, those that failed last first")
    group.add_argument("-S", "--shell", action="store_true", help="a terminal in the guest after COMMAND")
    group.add_argument("--dry-run", action="store_true", help="say what would be run, and run nothing")
    parser.set_defaults(unattended=False)
    add_guest(parser)
    group = add_results(parser)
    group.add_argument("--output", metavar="DIR", help="the run directory (new or empty)")
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", action="store_true", help="print only what changed since the last run of the same"
    )
    loudness.add_argument("-v", "--verbose", action="store_true", help="print every step and the console")


def _add_shell(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "shell",
        "shell:shell",
        help="a terminal in one cell",
        usage="quizmatrix shell CELL [OPTION]... [-- COMMAND [ARG]...]",
        description="Boot CELL and open a terminal in it, or run COMMAND on that. With --image debian it is "
        "SSH, over a port of the guest and no network; the exit status is the session's.",
    )
    parser.add_argument("only", nargs=1, metavar="CELL", help="a cell like 6.1-s390x")
    group = parser.add_argument_group("which guest")
    group.add_argument("--source", metavar="S", help="where a kernel that names none comes from")
    add_image_and_profiles(group)
    add_limits(parser)
    add_sources(parser)
    add_guest(parser, takes_stdin=False)
    # What `run` asks of many cells.
    parser.set_defaults(matrix=None, skip=[], kernels=[], arches=[], jobs=None, max_time=None)
    parser.set_defaults(retries="0", fail_fast=False)


def _add_visits(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "exec",
        "visits:execute",
        help="run a command in a guest that a terminal keeps open",
        usage="quizmatrix exec RUN/CELL -- COMMAND [ARG]...",
    )
    parser.add_argument("place", metavar="RUN/CELL", help="latest/6.1-s390x")
    parser = add_command(commands, "cp", "visits:copy", help="copy into or out of such a guest")
    parser.add_argument("source_path", metavar="FROM", help="a path here, or RUN/CELL:/PATH")
    parser.add_argument("target_path", metavar="TO", help="a path here, or RUN/CELL:/PATH")


def _add_bisect(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "bisect",
        "bisect:bisect",
        help="the released kernel with which a command's outcome changes",
        usage="quizmatrix bisect KERNEL KERNEL [OPTION]... -- COMMAND [ARG]...",
        description="Run COMMAND with both kernels, and where it ends differently find the first release "
        "between them with which it does, as many at a time as there are CPUs (-j). Of two releases of one "
        "series (6.12.1 6.12.40) its releases are walked, otherwise the newest of each series. What cannot "
        "be tested is passed over. Exit status 0 where it was found, 125 where not.",
    )
    parser.add_argument("a", metavar="KERNEL", help="5.10, kernel.org:6.1, git:../linux#v6.1")
    parser.add_argument("b", metavar="KERNEL", help="another one of the same source, or `newest`")
    group = parser.add_argument_group("which guest")
    group.add_argument("-a", "--arch", action="append", default=[], metavar="A", help="default: this host's")
    group.add_argument("--source", metavar="S", help="where a kernel that names none comes from")
    add_image_and_profiles(group)
    group.add_argument("-j", "--jobs", metavar="N", help="VMs at a time (default: one for each CPU)")
    add_limits(parser)
    add_sources(parser)
    add_guest(parser)
    # What `run` asks beside that.
    parser.set_defaults(
        matrix=None, skip=[], kernels=[], arches=[], retries="0", fail_fast=False, max_time=None
    )


def _add_cells(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "cells", "cells:cells", help="what a matrix expands to")
    add_selection(parser)
    add_limits(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_prepare(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands, "prepare", "cells:prepare", help="fetch all a matrix needs, check it, and run nothing"
    )
    add_selection(parser)
    add_sources(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what could not be had")


def _add_doctor(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "doctor",
        "doctor:doctor",
        help="what this host has, lacks, and the command that mends it",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--retry-kvm", action="store_true", help="try anew whether KVM runs a guest")


def _add_runs(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands, "runs", "runs:list_runs", help="past runs: list, show, logs, compare, prune"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "runs:list_runs", help="the runs that are kept, newest first")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = add_command(
        actions, "show", "runs:show", help="a run's grid and failures again, or a report of it"
    )
    show.add_argument("--over", metavar="T", help="RUN is a cell: how its runs of the last T (30d) ended")
    logs = add_command(actions, "logs", "runs:logs", help="what a cell printed")
    for action in (show, logs):
        action.add_argument(
            "run", nargs="?", default="latest", metavar="RUN", help="an id, its beginning, or `latest`"
        )
    group = show.add_argument_group("reports, instead of the grid")
    group.add_argument("--json", metavar="FILE", nargs="?", const="-", help="results.json (default: stdout)")
    add_reports(group)
    show.add_argument("--tests", action="store_true", help="every test in the output, not only what differs")
    logs.add_argument("cell", nargs="?", metavar="CELL", help="one cell (default: all)")
    stream = logs.add_mutually_exclusive_group()
    stream.add_argument("--stderr", dest="stream", action="store_const", const="stderr")
    stream.add_argument("--console", dest="stream", action="store_const", const="console.log")
    stream.add_argument("--qemu", dest="stream", action="store_const", const="qemu.log")
    logs.set_defaults(stream="stdout")
    _add_compare_and_prune(actions)


def _add_compare_and_prune(actions: Commands[Parser]) -> None:
    compare = add_command(
        actions,
        "compare",
        "past:compare_runs",
        help="what changed from run A to run B",
        description="What changed from run A to run B: cells, tests in their output, and messages of their "
        "kernels that regressed, are fixed, new, still failing, flaky (ended otherwise, though run from the "
        "same) or gone. Exit status 1 where something regressed.",
    )
    compare.add_argument(
        "a", nargs="?", metavar="A", help="a run (default: the one before B of the same command and matrix)"
    )
    compare.add_argument("b", nargs="?", metavar="B", help="a run (default: the newest)")
    compare.add_argument("--json", nargs="?", const="-", choices=["-"], help="as JSON")
    prune = add_command(
        actions,
        "prune",
        "past:prune",
        help="remove old run directories",
        description="Remove old run directories, never the newest nor one that is being written. With both "
        "--keep and --older-than those go that are beyond the newest N and older than T.",
    )
    prune.add_argument("--keep", metavar="N", help="keep the newest N (default, where neither is given: 50)")
    prune.add_argument("--older-than", metavar="T", help="remove only what is older: 30d")
    prune.add_argument("--dry-run", action="store_true", help="say what would be removed")


def _add_clean(commands: Commands[Parser]) -> None:
    parser = add_command(commands, "clean", "clean:clean", help="empty the cache")
    parser.add_argument("--runs", action="store_true", help="remove the kept runs and the history too")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed")


def _add_completion(commands: Commands[Parser]) -> None:
    parser = add_command(
        commands,
        "completion",
        "completion:completion",
        help="print a script that completes quizmatrix's words in your shell",
        description="bash: quizmatrix completion bash "
        "> ~/.local/share/bash-completion/completions/quizmatrix",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])
