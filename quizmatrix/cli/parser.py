"""The command line's words. Imports nothing that takes time: `--help` and completion pay for it."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from quizmatrix.errors import UsageError

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


class _Parser(argparse.ArgumentParser):
    """Errors as UsageError; long options only in full, so that a new one breaks no script."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"{self.prog} --help")


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
    args, unknown = parser.parse_known_args(head)
    if unknown and args.handler == "runs:logs" and args.cell is None and not unknown[0].startswith("-"):
        # argparse fills both optional words from what stands before the first option.
        args.cell = unknown.pop(0)
    if unknown:
        raise _explain_unknown(unknown[0], args)
    if command is not None and args.handler not in ("run:run", "shell:shell", "visits:execute"):
        raise UsageError("only `quizmatrix run`, `shell` and `exec` take a command after `--`")
    args.command = command
    return args


def _explain_unknown(word: str, args: argparse.Namespace) -> UsageError:
    if not word.startswith("-"):
        return UsageError(
            f"unexpected argument `{word}`",
            next_step="A command to run comes after `--`: quizmatrix run [MATRIX] -- COMMAND"
            if args.handler == "run:run"
            else f"quizmatrix {args.name} --help",
        )
    known = [option for action in args.parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(word.partition("=")[0], known, 1, 0.6)
    return UsageError(
        f"unknown option {word}",
        next_step=f"Did you mean `{near[0]}`?" if near else f"quizmatrix {args.name} --help",
    )


def build_parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The whole command line, and the names of its commands."""
    parser = _Parser(prog="quizmatrix", description=_DESCRIPTION, epilog=_EXAMPLES + "\n" + _EXIT_STATUSES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_shell(commands)
    _add_visits(commands)
    _add_cells(commands)
    _add_prepare(commands)
    _add_kernel(commands)
    _add_image(commands)
    _add_doctor(commands)
    _add_runs(commands)
    _add_clean(commands)
    _add_completion(commands)
    return parser, list(commands.choices)


Commands = argparse._SubParsersAction  # the class has no public name


def _add(commands: Commands[_Parser], name: str, handler: str, **options: Any) -> _Parser:
    parser: _Parser = commands.add_parser(name, **options)
    parser.set_defaults(handler=handler, name=parser.prog.removeprefix("quizmatrix "), parser=parser)
    return parser


def _add_selection(parser: _Parser) -> None:
    parser.add_argument(
        "matrix",
        nargs="?",
        metavar="MATRIX",
        help="a matrix file, or the name of one that ships (default: `default`)",
    )
    group = parser.add_argument_group("which cells")
    group.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="cells like 6.1-s390x or '*-x86_64'"
    )
    group.add_argument("--skip", action="append", default=[], metavar="GLOB", help="leave these out")
    group.add_argument("-k", "--kernels", action="append", default=[], help="6.1,newest")
    group.add_argument("-a", "--arches", action="append", default=[], help="x86_64,s390x")
    group.add_argument(
        "--source", metavar="S", help="where kernels that name none come from: debian, debian-source, ..."
    )
    _add_image_and_profiles(group)


def _add_image_and_profiles(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", metavar="I", help="the base image: small, debian, debian:SUITE")
    group.add_argument(
        "-p", "--profiles", action="append", default=[], metavar="P", help="memdev:count=6,net"
    )


def _add_sources(parser: _Parser) -> None:
    group = parser.add_argument_group("where kernels come from")
    group.add_argument("--offline", action="store_true", help="fetch nothing: use what is in the cache")
    group.add_argument("--refresh", action="store_true", help="ask the sources again for what is newest")


def _add_limits(parser: _Parser) -> None:
    group = parser.add_argument_group("limits (win over the matrix's)")
    group.add_argument("--timeout", metavar="T", help="of the command: 90s, 20m, 1h30m (on hardware)")
    group.add_argument("--boot-timeout", metavar="T", help="until the guest is up (on hardware)")
    group.add_argument("--memory", metavar="M", help="of a guest: 512M, 1G")
    group.add_argument("--cpus", metavar="N", help="of a guest")


def _add_guest(parser: _Parser) -> None:
    group = parser.add_argument_group("the guest")
    group.add_argument("--accel", choices=["auto", "kvm", "tcg"], default="auto", help="default: auto")
    group.add_argument("--machine", metavar="M", help="QEMU's -machine, instead of the architecture's")
    group.add_argument(
        "--layer", action="append", default=[], metavar="DIR", help="a folder laid over the guest's root"
    )
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="HOST:GUEST[:ro]",
        help="a folder shown at a place in the guest, and written through to",
    )
    group.add_argument(
        "--env", action="append", default=[], metavar="K=V", help="a variable of the command's environment"
    )
    group.add_argument("--user", metavar="NAME", help="run COMMAND as this user of the guest")
    group.add_argument(
        "--no-work-tree", action="store_true", help="do not show the current folder to the guest"
    )


def _add_run(commands: Commands[_Parser]) -> None:
    parser = _add(
        commands,
        "run",
        "run:run",
        help="run a command in every cell of a matrix",
        usage="quizmatrix run [MATRIX] [OPTION]... -- COMMAND [ARG]...",
        description="Run COMMAND in every cell of MATRIX and print a grid of what happened. One word is a "
        "script for the guest's sh; among several, && || and | are the shell's. One single cell behaves like "
        "running COMMAND here.",
        epilog=_EXIT_STATUSES,
    )
    _add_selection(parser)
    _add_limits(parser)
    _add_sources(parser)
    group = parser.add_argument_group("how they are run")
    group.add_argument("-j", "--jobs", metavar="N", help="VMs at a time (default: what the host can hold)")
    group.add_argument("--retries", metavar="N", default="0", help="more tries for cells that did not boot")
    group.add_argument("-x", "--fail-fast", action="store_true", help="stop at the first failure")
    group.add_argument("-S", "--shell", action="store_true", help="a terminal in the guest after COMMAND")
    group.add_argument("--dry-run", action="store_true", help="say what would be run, and run nothing")
    _add_guest(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--output", metavar="DIR", help="the run directory (new or empty)")
    group.add_argument("--json", metavar="FILE", help="write results.json there too (-: stdout)")
    loudness = group.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print only what is not as expected")
    loudness.add_argument("-v", "--verbose", action="store_true", help="print every step and the console")


def _add_shell(commands: Commands[_Parser]) -> None:
    parser = _add(
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
    _add_image_and_profiles(group)
    _add_limits(parser)
    _add_sources(parser)
    _add_guest(parser)
    # What `run` asks of many cells.
    parser.set_defaults(matrix=None, skip=[], kernels=[], arches=[], jobs=None, retries="0", fail_fast=False)


def _add_visits(commands: Commands[_Parser]) -> None:
    parser = _add(
        commands,
        "exec",
        "visits:execute",
        help="run a command in a guest that a terminal keeps open",
        usage="quizmatrix exec RUN/CELL -- COMMAND [ARG]...",
    )
    parser.add_argument("place", metavar="RUN/CELL", help="latest/6.1-s390x")
    parser = _add(commands, "cp", "visits:copy", help="copy into or out of such a guest")
    parser.add_argument("source_path", metavar="FROM", help="a path here, or RUN/CELL:/PATH")
    parser.add_argument("target_path", metavar="TO", help="a path here, or RUN/CELL:/PATH")


def _add_cells(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "cells", "cells:cells", help="what a matrix expands to")
    _add_selection(parser)
    _add_limits(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_prepare(commands: Commands[_Parser]) -> None:
    parser = _add(
        commands, "prepare", "cells:prepare", help="fetch all a matrix needs, check it, and run nothing"
    )
    _add_selection(parser)
    _add_sources(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what could not be had")


def _add_kernel(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "kernel", "kernels:list_kernels", help="build, list and remove kernels")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = _add(
        actions,
        "build",
        "kernels:build",
        help="build kernels from source",
        description="SPEC is a series (6.12: its newest release), an exact version, `newest`, a candidate "
        "(6.13-rc2), next-DATE, master, or names its source: debian-source:6.12, kernel.org:6.12.57, "
        "git:REPOSITORY#REF, path:DIR, tarball:FILE.",
    )
    make.add_argument("spec", nargs="+", metavar="SPEC")
    make.add_argument("-a", "--arches", action="append", default=[], help="default: this host's")
    make.add_argument(
        "--source",
        metavar="S",
        help="where versions that name none come from (default: debian-source; kernel.org for candidates, "
        "next-DATE and master)",
    )
    make.add_argument("--variant", metavar="V", help="a fragment of kernel-configs/variant: debug, kasan")
    make.add_argument("--config", metavar="FILE", help="a fragment of your own")
    make.add_argument("--clang", action="store_true", help="compile with clang")
    make.add_argument("-j", "--jobs", metavar="N", help="processes at a time (default: one for each CPU)")
    make.add_argument("-e", "--enable", action="append", default=[], metavar="KEY", help="CONFIG_KEY=y")
    make.add_argument("-d", "--disable", action="append", default=[], metavar="KEY", help="CONFIG_KEY=n")
    make.add_argument("-m", "--module", action="append", default=[], metavar="KEY", help="CONFIG_KEY=m")
    make.add_argument("--refresh", action="store_true", help="ask the sources again for what is newest")
    _add(actions, "list", "kernels:list_kernels", help="the kernels in the cache")
    show = _add(actions, "show", "kernels:show", help="what a kernel is, and who asked for its configuration")
    remove = _add(actions, "remove", "kernels:remove", help="remove kernels from the cache")
    show.add_argument("key", metavar="KEY", help="as `kernel list` has it, or the beginning")
    remove.add_argument("key", nargs="*", metavar="KEY", help="as `kernel list` has it, or the beginning")
    remove.add_argument("--unused", action="store_true", help="those that nothing asks for any more")


def _add_image(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "image", "images:list_images", help="build, list and remove Debian images")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    make = _add(
        actions,
        "build",
        "images:build",
        help="build a Debian image, and use it from now on",
        description="An image of another architecture is configured inside a guest of that architecture, "
        "where this host cannot run its programs.",
    )
    make.add_argument("-a", "--arch", dest="arches", action="append", default=[], help="default: this host's")
    make.add_argument("--suite", metavar="S", help="Debian's suite: bookworm, trixie, sid")
    make.add_argument(
        "--include", action="append", default=[], metavar="PKG", help="packages, and sets like zfs-tests"
    )
    make.add_argument("--kernel", metavar="K", help="the kernel of a guest that configures it")
    _add(actions, "list", "images:list_images", help="the Debian images in the cache")
    remove = _add(actions, "remove", "images:remove", help="remove images from the cache")
    remove.add_argument("key", nargs="+", metavar="IMAGE", help="as `image list` has it")


def _add_doctor(commands: Commands[_Parser]) -> None:
    parser = _add(
        commands,
        "doctor",
        "doctor:doctor",
        help="what this host has, lacks, and the command that mends it",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--retry-kvm", action="store_true", help="try anew whether KVM runs a guest")


def _add_runs(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "runs", "runs:list_runs", help="past runs: list, show, logs")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = _add(actions, "list", "runs:list_runs", help="the runs that are kept, newest first")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = _add(actions, "show", "runs:show", help="a run's grid and failures again")
    logs = _add(actions, "logs", "runs:logs", help="what a cell printed")
    for action in (show, logs):
        action.add_argument(
            "run", nargs="?", default="latest", metavar="RUN", help="an id, its beginning, or `latest`"
        )
    show.add_argument("--json", action="store_true", help="as JSON")
    logs.add_argument("cell", nargs="?", metavar="CELL", help="one cell (default: all)")
    stream = logs.add_mutually_exclusive_group()
    stream.add_argument("--stderr", dest="stream", action="store_const", const="stderr")
    stream.add_argument("--console", dest="stream", action="store_const", const="console.log")
    stream.add_argument("--qemu", dest="stream", action="store_const", const="qemu.log")
    logs.set_defaults(stream="stdout")


def _add_clean(commands: Commands[_Parser]) -> None:
    parser = _add(commands, "clean", "clean:clean", help="empty the cache")
    parser.add_argument("--runs", action="store_true", help="remove the kept runs too")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed")


def _add_completion(commands: Commands[_Parser]) -> None:
    parser = _add(
        commands,
        "completion",
        "completion:completion",
        help="print a script that completes quizmatrix's words in your shell",
        description="bash: quizmatrix completion bash "
        "> ~/.local/share/bash-completion/completions/quizmatrix",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])
