"""The command `quizmatrix completion` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command

# The arguments that are files or folders of the host, beside the reports.
_FILES = frozenset({"matrix", "layer", "output", "folder", "stdin"})


def add_parser(commands: Commands[Parser]) -> None:
    """Add `completion`."""
    parser = add_command(
        commands,
        "completion",
        completion,
        help="print a script that completes quizmatrix's words in your shell",
        epilog="example:\n"
        "  quizmatrix completion bash > ~/.local/share/bash-completion/completions/quizmatrix\n",
    )
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="your shell")


def completion(args: argparse.Namespace) -> int:
    """Print the completion script for a shell."""
    import shtab

    from quizmatrix.cli.parser import parser
    from quizmatrix.model.options import REPORTS

    whole = parser()
    for action in _all_actions(whole):
        if action.dest in _FILES.union(REPORTS) and action.nargs != 0:
            # shtab reads this attribute, which argparse's class does not have.
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(whole, args.shell))
    return 0


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += _all_actions(child)
    return found
