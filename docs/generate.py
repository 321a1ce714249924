"""Writes what follows from the code: docs/command-line.md, the man page, the JSON schema of results.json.

`make docs` runs this. Options that several commands share are listed once, which argparse-manpage cannot do.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

import quizmatrix
from quizmatrix.cli.parser import parser as whole_command_line
from quizmatrix.model.result import RunResults

DOCS = Path(__file__).parent

_ABOUT = """\
A cell is one kernel on one architecture, perhaps with a variant of its configuration: `6.1-x86_64`, \
`6.12-s390x+kasan`. A matrix is a TOML file that lists kernels and architectures; their combinations are its \
cells.

Each cell boots in a microVM of its own and sees the current folder at the same path. COMMAND runs there as \
if it had been typed here. What it writes to `/shared` stays, as the cell's `artifacts/` in the run \
directory, and so does what it writes to a folder of `--bind`. All other changes, those of the current \
folder included, are gone when it ends.\
"""

# The last sections, by title; tables by the line above each.
_SECTIONS = {
    "environment": {
        "Read by quizmatrix:": {
            "QUIZMATRIX_CACHE_DIR": "the cache, instead of `~/.cache/quizmatrix`",
            "QUIZMATRIX_TEMPLATES": "how large all templates may be, instead of `4G`",
            "QUIZMATRIX_TRAVEL": "how large all may be that travels between hosts, instead of `20G`",
            "QUIZMATRIX_STATE_DIR": "runs and their history, instead of `~/.local/state/quizmatrix`",
            "QUIZMATRIX_CONFIG_DIR": "the user's settings, instead of `~/.config/quizmatrix`",
            "XDG_CACHE_HOME, XDG_STATE_HOME, XDG_CONFIG_HOME, XDG_DATA_HOME": "the same for all programs, "
            "where those above are not set",
            "NO_COLOR": "where it is set and not empty, the output has no colours",
            "GITHUB_STEP_SUMMARY": "the file of a GitHub job's summary; `run` appends its Markdown report",
        },
        "Set in the guest, for COMMAND:": {
            "QUIZMATRIX_CELL, QUIZMATRIX_KERNEL, QUIZMATRIX_ARCH": "the cell, its kernel as the matrix has "
            "it, and its architecture",
            "QUIZMATRIX_PROFILES": "its profiles, with commas between them",
            "QUIZMATRIX_TIMEOUT_FACTOR": "by how much time limits are longer than on hardware",
            "QUIZMATRIX_SHARD, QUIZMATRIX_SHARDS": "with `--shard`: which slice of the tests this VM "
            "runs, from 1, and of how many",
            "QUIZMATRIX_SECONDS_FILE": "with `--shard`: a file with lines `SECONDS NAME`, how long tests "
            "took last, where that is known",
            "QUIZMATRIX_TESTS_FILE, QUIZMATRIX_SKIP_FILE, QUIZMATRIX_LOST_FILE": "files with names: of the "
            "only tests to run, of those not to run, and of those that ended their guest",
            "QUIZMATRIX_HANDOFF": "with [handoff] in the matrix: `write`, `read` or `back`",
            "QUIZMATRIX_DISKS": "with [handoff]: the disks, such as `/dev/quizh0 /dev/quizh1`",
            "QUIZMATRIX_WRITER": "with [handoff]: the cell that wrote them",
        },
        "Set for the setup script of a profile, which runs on the host:": {
            "QUIZMATRIX_CELL, QUIZMATRIX_ARCH": "the cell and its architecture",
            "QUIZMATRIX_FOLDER": "a folder for what is of this run; it is removed when the cell ends",
            "QUIZMATRIX_STATE": "the folder for what stays: the state directory above",
        },
        "Set for the script of --on-finish:": {
            "QUIZMATRIX_RUN, QUIZMATRIX_RUN_DIR": "the run's id and its directory",
            "QUIZMATRIX_EXIT_STATUS": "the run's exit status",
        },
    },
    "files": {
        "": {
            "~/.local/state/quizmatrix/runs/RUN/": "a run directory: `results.json`, `events.jsonl`, and "
            "for each cell `CELL/stdout`, `stderr`, `console.log`, `result.json`, `reproduce.sh` and "
            "`artifacts/`; `latest` is a link to the newest",
            "~/.local/state/quizmatrix/history.sqlite": "what is known of earlier runs",
            "~/.local/state/quizmatrix/guesses/": "QEMU's command lines, with which later runs begin",
            "~/.cache/quizmatrix/": "kernels, images and builds; `quizmatrix clean` empties it",
            "~/.config/quizmatrix/debian.toml": "what replaces keys of Debian's archive: mirrors, keyring",
            "~/.config/quizmatrix/kernel.org.toml": "the same for kernel.org",
            "~/.config/quizmatrix/profiles/NAME/": "profiles of your own",
            "~/.config/quizmatrix/nightly/NAME.json": "what runs every night",
            "~/.local/share/quizmatrix/layer/": "a folder that is laid over the root of every guest",
        },
    },
}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Options that stand together, as they are typed, and their help. like: the command that has the same."""

    title: str
    options: list[tuple[str, str]]
    like: str = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command, such as `quizmatrix runs list`. notes: the texts below its options, by title."""

    name: str
    help: str
    usage: str
    description: str
    groups: list[Group]
    notes: dict[str, str]


def commands_of(parser: argparse.ArgumentParser, text: str = "") -> Iterator[Command]:
    """The commands at the ends of a parser's tree; text: what its parent says of it."""
    below = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for action in below:
        for choice in action._choices_actions:
            yield from commands_of(action.choices[choice.dest], choice.help or "")
    if not below:
        yield command_of(parser, text)


def command_of(parser: argparse.ArgumentParser, text: str = "") -> Command:
    """What a parser says of itself."""
    expand = parser._get_formatter()._expand_help
    groups = []
    for group in parser._action_groups:
        options = [
            (_typed(one), expand(one) if one.help else "") for one in group._group_actions if _is_shown(one)
        ]
        if options:
            title = (group.title or "").replace("positional arguments", "arguments")
            groups.append(Group(title=_capital(title), options=options))
    notes = re.findall(r"^(\S.*):\n((?:(?:  .*)?\n)+)", f"{parser.epilog or ''}\n", re.MULTILINE)
    return Command(
        name=parser.prog,
        help=f"{_capital(text)}.",
        usage=_usage(parser),
        description=parser.description or "",
        groups=groups,
        notes={title: inspect.cleandoc(lines) for title, lines in notes},
    )


def _is_shown(action: argparse.Action) -> bool:
    is_for_itself = isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
    return not is_for_itself and action.help != argparse.SUPPRESS


def _typed(action: argparse.Action) -> str:
    """An option with its value, `-j, --jobs N`, or the name of an argument."""
    choices = ",".join(action.choices or ())
    value = action.metavar or (f"{{{choices}}}" if "," in choices else choices) or action.dest.upper()
    if not action.option_strings:
        return str(value)
    words = ", ".join(action.option_strings)
    if action.nargs == 0:
        return words
    return f"{words} [{value}]" if action.nargs == "?" else f"{words} {value}"


_REPEATED = {"?": "[{}]", "*": "[{}]...", "+": "{}..."}


def _usage(parser: argparse.ArgumentParser) -> str:
    """A short one, with [OPTION]... for all options; argparse's own is not the same in all Pythons."""
    if parser.usage:
        return inspect.cleandoc(parser.usage)
    shown = [action for action in parser._actions if _is_shown(action)]
    arguments = [action for action in shown if not action.option_strings]
    words = [_REPEATED.get(str(action.nargs), "{}").format(_typed(action)) for action in arguments]
    options = ["[OPTION]..."] if len(shown) > len(arguments) else []
    return " ".join([parser.prog, *words, *options])


def without_repetition(commands: Iterable[Command]) -> list[Command]:
    """The commands; where one has a group or a note of an earlier one, it is left out (see Group.like)."""
    groups: dict[str, str] = {}
    notes: set[str] = set()
    found = []
    for command in commands:
        own = []
        for group in command.groups:
            first = groups.setdefault(repr(group), command.name)
            is_shorter = first != command.name and len(group.options) > 1
            own.append(Group(title=group.title, options=[], like=first) if is_shorter else group)
        new = {title: text for title, text in command.notes.items() if text not in notes}
        notes.update(new.values())
        found.append(msgspec.structs.replace(command, groups=own, notes=new))
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def man_page(top: Command, commands: list[Command]) -> str:
    """quizmatrix(1), for man(7)."""
    lines = [
        f'.TH QUIZMATRIX 1 "" "quizmatrix {quizmatrix.__version__}" "User Commands"',
        ".SH NAME",
        r"quizmatrix \- run one command on many Linux kernels and architectures at once",
        ".SH SYNOPSIS",
        *_roff_lines("quizmatrix COMMAND ...\nquizmatrix COMMAND --help", bold=True),
        ".SH DESCRIPTION",
        _roff(top.description),
        *(line for text in _ABOUT.split("\n\n") for line in (".PP", _roff(text))),
        *(line for group in top.groups for line in _roff_options(group.options)),
        ".SH COMMANDS",
    ]
    for command in commands:
        lines += _roff_command(command)
    lines += [".SH EXIT STATUS", *_roff_lines(top.notes["exit status"])]
    for title, tables in _SECTIONS.items():
        lines.append(f".SH {title.upper()}")
        for above, table in tables.items():
            lines += [*([".PP", _roff(above)] if above else []), *_roff_options(table.items())]
    lines += [".SH EXAMPLES", *_roff_lines(top.notes["examples"])]
    lines += [".SH SEE ALSO", r".BR qemu\-system\-x86_64 (1)"]
    return "\n".join(lines) + "\n"


def _roff_command(command: Command) -> list[str]:
    lines = [f".SS {_roff(command.name)}", *_roff_lines(command.usage, bold=True), ".PP", _roff(command.help)]
    if command.description:
        lines += [".PP", _roff(command.description)]
    for group in command.groups:
        listed = [_roff(f"as for `{group.like}`")] if group.like else _roff_options(group.options)
        lines += [".PP", rf"\fI{_roff(group.title)}\fR", ".RS 4", *listed, ".RE"]
    for title, text in command.notes.items():
        lines += [".PP", rf"\fI{_roff(_capital(title))}\fR", *_roff_lines(text)]
    return lines


def _roff(text: str) -> str:
    """Text for man(7), what stands in backticks bold; no line of it begins with a dot or an apostrophe."""
    for character, escape in {"\\": r"\e", "-": r"\-", "~": r"\(ti", "'": r"\(aq"}.items():
        text = text.replace(character, escape)
    return re.sub(r"^\.", r"\&.", re.sub(r"`([^`]+)`", r"\\fB\1\\fR", text), flags=re.MULTILINE)


def _roff_lines(text: str, *, bold: bool = False) -> list[str]:
    """Text whose lines are kept as they are."""
    lines = [rf"\fB{line}\fR" if bold else line for line in _roff(text).splitlines()]
    return [".PP", ".nf", *lines, ".fi"]


def _roff_options(options: Iterable[tuple[str, str]]) -> list[str]:
    return [line for typed, text in options for line in (".TP", rf"\fB{_roff(typed)}\fR", _roff(text))]


def web_page(top: Command, commands: list[Command]) -> str:
    """The command line's page, as Markdown."""
    lines = ["# The command line", "", _markdown(top.description), "", _markdown(_ABOUT), ""]
    lines += ["| command | |", "|---|---|"]
    lines += [f"| {_link(command.name)} | {_markdown(command.help)} |" for command in commands]
    for group in top.groups:
        lines += ["", *_table(group.options)]
    for title, text in top.notes.items():
        lines += ["", f"## {_capital(title)}", "", *_code(text)]
    for command in commands:
        lines += ["", f"## {command.name}", "", *_code(command.usage), "", _markdown(command.help)]
        if command.description:
            lines += ["", _markdown(command.description)]
        for group in command.groups:
            listed = [f"As for {_link(group.like)}."] if group.like else _table(group.options)
            lines += ["", f"**{group.title}**", "", *listed]
        for title, text in command.notes.items():
            lines += ["", f"**{_capital(title)}**", "", *_code(text)]
    for title, tables in _SECTIONS.items():
        lines += ["", f"## {_capital(title)}"]
        for above, table in tables.items():
            lines += [*(["", above] if above else []), "", *_table(table.items())]
    return "\n".join(lines) + "\n"


def _link(name: str) -> str:
    return f"[{name}](#{name.replace(' ', '-')})"


def _code(text: str) -> list[str]:
    return [f"    {line}".rstrip() for line in text.splitlines()]


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    cells = [(name.replace("|", r"\|"), _markdown(text).replace("|", r"\|")) for name, text in rows]
    return ["| | |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in cells)]


def _markdown(text: str) -> str:
    """Text in which there is no other markup than backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<\\])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def schema() -> bytes:
    """The JSON schema of results.json."""
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of quizmatrix",
        **_without_docstrings(msgspec.json.schema(RunResults)),
    }
    return msgspec.json.format(msgspec.json.encode(made)) + b"\n"


def _without_docstrings(part: Any) -> Any:
    """A schema without the descriptions of its structs, which are for those who read the code."""
    if isinstance(part, list):
        return [_without_docstrings(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {key: _without_docstrings(value) for key, value in part.items() if key != "description"}


def generated() -> dict[str, bytes]:
    """The files, by their names in this folder."""
    parser = whole_command_line()
    top, *commands = without_repetition([command_of(parser), *commands_of(parser)])
    return {
        "command-line.md": web_page(top, commands).encode(),
        "quizmatrix.1": man_page(top, commands).encode(),
        "results.schema.json": schema(),
    }


def main() -> None:
    """Write them all."""
    for name, data in generated().items():
        (DOCS / name).write_bytes(data)


if __name__ == "__main__":
    main()
