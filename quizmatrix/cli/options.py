"""Options that several commands share, and the conversion of a parsed command line to RunOptions."""

from __future__ import annotations

import argparse
import re
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


# An option of QEMU's with its value, as one word.
_QEMU_WORDS = re.compile(r"-[a-z][\w-]+ ")


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

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        # In `--qemu '-device X'`, the value is no `-d evice X`.
        return [] if _QEMU_WORDS.match(option_string) else super()._get_option_tuples(option_string)


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
    "rerun_failed": ("--rerun-failed", 0),
    "cpus": ("--cpus", 1),
    "numa": ("--numa", 1),
}


def run_options(args: argparse.Namespace) -> RunOptions:
    """The options of a run from a parsed command line. Raises UsageError where a value is wrong."""
    from quizmatrix.core import units
    from quizmatrix.model.options import AUTO, RunOptions, with_values

    given = {name: getattr(args, name) for name in typed_options(args)}
    for name, (option, least) in _NUMBERS.items():
        if name in given:
            given[name] = units.checked(option, given[name], units.whole_number(least))
    if given.get("shard") not in (None, AUTO):
        given["shard"] = units.checked("--shard", given["shard"], _number_or_auto)
    if "max_time" in given:
        units.checked("--max-time", given["max_time"], units.parse_duration)
    try:
        return with_values(RunOptions(), given)
    except ValueError as error:
        raise UsageError("that cannot be set", cause=str(error)) from error


def _number_or_auto(text: str) -> int:
    from quizmatrix.core import units

    try:
        return units.whole_number(1)(text)
    except ValueError as error:
        raise ValueError(f"{error}, or `auto`") from error


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
    add_config(group)
    add_image_and_profiles(group)


def add_config(group: Parser | argparse._ArgumentGroup) -> None:
    """Add the options that change the configuration of kernels built here."""
    for short, long, value in (("-e", "--enable", "y"), ("-d", "--disable", "n"), ("-m", "--module", "m")):
        group.add_argument(
            short,
            long,
            action="append",
            default=[],
            metavar="KEY",
            help=f"CONFIG_KEY={value}, for kernels built here",
        )


def add_image_and_profiles(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", metavar="I", help="the base image: small, debian, debian:SUITE")
    group.add_argument(
        "-p", "--profiles", action="append", default=[], metavar="P", help="memdev:count=6,net"
    )


def add_no_provide(group: Parser | argparse._ArgumentGroup) -> None:
    """Add --no-provide, for those that run a COMMAND."""
    group.add_argument(
        "--no-provide",
        action="store_true",
        help="take nothing because COMMAND needs it, such as the profiles and the image of zfs-tests.sh",
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
    group.add_argument(
        "--rerun-failed", metavar="N", help="run the tests that failed once more, in a new VM, up to N times"
    )
    group.add_argument(
        "--build", action="store_true", help="first build what is out of date in OpenZFS; implies -p zfs"
    )
    group.add_argument(
        "--shard",
        metavar="N",
        help="split each cell's tests into N slices, each in its own VM (auto: as many as the host can hold)",
    )
    group.add_argument(
        "--shard-like",
        metavar="RUN",
        help="split them by the same times of single tests as RUN, so into the same slices",
    )
    group.add_argument("-x", "--fail-fast", action="store_true", help="stop at the first failure")
    group.add_argument(
        "--on",
        metavar="HOSTS",
        help="run them on other hosts: ssh:HOST,... or slurm or a dask scheduler's, tls://HOST:8786",
    )
    group.add_argument("--certificates", metavar="DIR", help="with --on: those of this host")
    group.add_argument(
        "--build-on", choices=["workers"], help="with --on: these build kernels whose sources they can fetch"
    )
    group.add_argument(
        "--store",
        metavar="DIR",
        help="with --on: a folder or a URL that all hosts reach, for what they run cells from",
    )
    group.add_argument(
        "--whole-tree",
        action="store_true",
        help="with --on: send large files of the current folder, too, that git ignores",
    )
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
