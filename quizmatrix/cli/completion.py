"""`quizmatrix completion`."""

from __future__ import annotations

import argparse

from quizmatrix.model.outcome import EXIT_OK

# What is a file or a folder of the host, by the names of the arguments.
_FILES = frozenset({"matrix", "json", "junit", "markdown", "html", "layer", "output", "folder", "stdin"})


def completion(args: argparse.Namespace) -> int:
    """Print the completion script for a shell."""
    import shtab

    from quizmatrix.cli.parser import build_parser

    parser, _ = build_parser()
    for action in _all_actions(parser):
        if action.dest in _FILES:
            # Where shtab looks for it; argparse's own class does not know the attribute.
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return EXIT_OK


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += _all_actions(child)
    return found
