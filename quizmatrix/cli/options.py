"""Options that several commands share, and the conversion of a parsed command line to RunOptions."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from quizmatrix.core.errors import UsageError

if TYPE_CHECKING:
    from quizmatrix.model.options import RunOptions, RunRequest

EXIT_STATUSES = """\
exit status:
  0     every cell ended as its matrix expects
  N     exactly one cell ran, and its command ended with N (128+n: killed by signal n)
  1     several cells ran and at least one failed; or one cell panicked or splatted
  124   exactly one cell ran, and it timed out
  125   no verdict: a wrong command line or matrix, or a cell that could not be tested
  130   interrupted
"""


class Parser(argparse.ArgumentParser):
    """Raises UsageError, and takes long options only in full, so that a new option breaks no script."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step=f"{self.prog} --help")


Commands = argparse._SubParsersAction  # the class has no public name


Handler = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands[Parser],
    name: str,
    handler: Handler,
    *,
    takes_command: bool = False,
    uses_cache: bool = False,
    late: str = "",
    **options: Any,
) -> Parser:
    """Add a command, or an action of a command.

    takes_command: whether the user's COMMAND may follow after `--`. uses_cache: whether it fetches, builds or
    boots, so that the cache must not be removed meanwhile. late: an optional positional argument that may
    stand after options.
    """
    parser: Parser = commands.add_parser(name, **options)
    parser.set_defaults(
        handler=handler,
        name=parser.prog.removeprefix("quizmatrix "),
        parser=parser,
        takes_command=takes_command,
        uses_cache=uses_cache,
        late=late,
    )
    return parser


# Options that are numbers: the name in error messages, and the smallest value.
_NUMBERS = {
    "jobs": ("-j", 1),
    "retries": ("--retries", 0),
    "shard": ("--shard", 1),
    "cpus": ("--cpus", 1),
    "numa": ("--numa", 1),
}


def run_options(args: argparse.Namespace) -> RunOptions:
    """The options of a run from a parsed command line. Raises UsageError where a value is wrong."""
    from quizmatrix.core import units
    from quizmatrix.model.options import RunOptions, with_values

    given = {name: getattr(args, name) for name in typed_options(args)}
    for name, (option, least) in _NUMBERS.items():
        if name in given:
            given[name] = units.checked(option, given[name], units.whole_number(least))
    if "max_time" in given:
        units.checked("--max-time", given["max_time"], units.parse_duration)
    try:
        return with_values(RunOptions(), given)
    except ValueError as error:
        raise UsageError("that cannot be set", cause=str(error)) from error


def number(option: str, text: str | None) -> int | None:
    """The value of an option that is a number of at least 1; None where the option is not given."""
    from quizmatrix.core import units

    return units.checked(option, text, units.whole_number(1)) if text is not None else None


def typed_options(args: argparse.Namespace) -> frozenset[str]:
    """The names of the run's options that were typed; argparse has no value for the others."""
    from quizmatrix.model.options import NAMES

    return frozenset(name for name, value in vars(args).items() if name in NAMES and value)


def run_request(args: argparse.Namespace) -> RunRequest:
    """The requested run, from a parsed command line."""
    from quizmatrix.model.options import RunRequest

    return RunRequest(
        options=run_options(args),
        command=args.command,
        arguments=args.arguments,
        typed=typed_options(args),
    )


def refuse_blanks(args: argparse.Namespace, command: list[str] | None) -> None:
    """Raise UsageError for empty words, which come from empty variables in the user's shell.

    An empty COMMAND would be an empty script, an empty MATRIX the default one, an empty --layer the current
    folder.
    """
    if command is not None and len(command) == 1 and not command[0].strip():
        raise _names_nothing("COMMAND")
    for action in args.parser._actions:
        value = getattr(args, action.dest, None)
        if value == action.default:
            continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not text.strip():
                raise _names_nothing(max(action.option_strings, key=len, default=str(action.metavar)))


def _names_nothing(what: str) -> UsageError:
    return UsageError(f"{what} names nothing", next_step="Is a variable in the command line empty?")


def add_selection(parser: Parser, *, names_sources: bool = True) -> None:
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
    if names_sources:
        group.add_argument(
            "--source", metavar="S", help="the source of kernels that name none: debian, debian-source, ..."
        )
    add_image_and_profiles(group)


def add_image_and_profiles(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", metavar="I", help="the base image: small, debian, debian:SUITE")
    group.add_argument(
        "-p", "--profiles", action="append", default=[], metavar="P", help="memdev:count=6,net"
    )


def add_sources(parser: Parser) -> None:
    group = parser.add_argument_group("where kernels come from")
    group.add_argument("--offline", action="store_true", help="fetch nothing: use what is in the cache")
    group.add_argument("--refresh", action="store_true", help="ask the sources again for newest versions")


def add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("limits (win over the matrix's)")
    group.add_argument("--timeout", metavar="T", help="of the command: 90s, 20m, 1h30m (on hardware)")
    group.add_argument("--boot-timeout", metavar="T", help="until the guest is up (on hardware)")
    group.add_argument("--memory", metavar="M", help="of a guest: 512M, 1G")
    group.add_argument("--cpus", metavar="N", help="of a guest")
    group.add_argument("--numa", metavar="N", help="NUMA nodes of a guest, which share its memory and CPUs")
    group.add_argument("--shared-limit", metavar="M", help="of what a guest has in /shared (default: 4G)")
    group.add_argument(
        "--append",
        action="append",
        default=[],
        metavar="WORDS",
        help="more kernel parameters, after the matrix's: 'slub_debug=FZP loglevel=7'",
    )


def add_guest(parser: Parser, *, takes_stdin: bool = True) -> None:
    """Add the options for the guest. takes_stdin: with those for the command's stdin."""
    group = parser.add_argument_group("the guest")
    if takes_stdin:
        add_stdin(group)
    group.add_argument("--accel", choices=["auto", "kvm", "tcg"], help="default: auto")
    group.add_argument("--machine", metavar="M", help="QEMU's -machine, instead of the architecture's")
    group.add_argument(
        "--qemu",
        action="append",
        default=[],
        metavar="ARG",
        help="more words for QEMU's command line, which are not checked: '-device virtio-rng-pci'",
    )
    group.add_argument(
        "--layer", action="append", default=[], metavar="DIR", help="a folder, laid over the guest's root"
    )
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="HOST:GUEST[:ro]",
        help="a folder or file of the host at a path in the guest, which may write to it",
    )
    group.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="K[=V]",
        help="a variable for the command; without =V, its value is taken from this environment, and is not "
        "recorded",
    )
    group.add_argument(
        "--user", metavar="USER[:GROUP]", help="run COMMAND as this user of the guest, a name or a number"
    )
    group.add_argument(
        "--no-work-tree", action="store_true", help="do not show the current folder to the guest"
    )


def add_stdin(group: argparse._ArgumentGroup) -> None:
    """Add --stdin and --no-stdin, which exclude each other."""
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--stdin",
        metavar="FILE",
        help="COMMAND's stdin, the same bytes in every cell (-: quizmatrix's stdin); by default a single "
        "cell reads quizmatrix's stdin, as over ssh, and several cells read /dev/null",
    )
    which.add_argument(
        "--no-stdin",
        dest="stdin",
        action="store_const",
        const=os.devnull,
        help="COMMAND's stdin is /dev/null, and quizmatrix's is not read",
    )


def add_reports(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--junit", metavar="FILE", help="JUnit XML, for a CI system (-: stdout)")
    group.add_argument("--markdown", metavar="FILE", help="Markdown, for a pull request (-: stdout)")
    group.add_argument("--html", metavar="FILE", help="one page with grid, logs and search, for a browser")


def add_conduct(parser: Parser) -> argparse._ArgumentGroup:
    """Add the options that say how the cells are run: how many at a time, for how long, and so on."""
    group = parser.add_argument_group("how they are run")
    group.add_argument("-j", "--jobs", metavar="N", help="VMs at a time (default: what the host can hold)")
    group.add_argument(
        "--max-time",
        metavar="T",
        help="a limit for the whole run: then, running cells are stopped, and the others skipped",
    )
    group.add_argument("--retries", metavar="N", help="more attempts for cells that did not boot")
    group.add_argument("--build", action="store_true", help="first build what is out of date in OpenZFS")
    group.add_argument(
        "--shard",
        metavar="N",
        help="split each cell's tests into N slices, each in its own VM",
    )
    group.add_argument("-x", "--fail-fast", action="store_true", help="stop at the first failure")
    return group


def add_results(parser: Parser) -> argparse._ArgumentGroup:
    """Add the options for reports, exit status and --on-finish."""
    group = parser.add_argument_group("results")
    group.add_argument("--json", metavar="FILE", help="also write results.json to FILE (-: stdout)")
    add_reports(group)
    group.add_argument(
        "--fail-on",
        choices=["any", "regression"],
        help="regression: exit status 1 only if something fails that did not fail in the last run of the "
        "same command, matrix and folder",
    )
    group.add_argument(
        "--on-finish", metavar="CMD", help="a script for sh, run at the end with results.json as its stdin"
    )
    return group
