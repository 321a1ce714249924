"""The command `quizmatrix completion` and its parser."""

from __future__ import annotations

import argparse

from quizmatrix.cli.options import Commands, Parser, add_command

# The arguments that are files or folders of the host, beside the reports.
_FILES = frozenset({"matrix", "layer", "output", "coverage", "folder", "stdin"})

# The arguments, by name and metavar, whose words come from `completion SHELL --words`.
_WORDS = {
    ("only", "GLOB"): "cells",
    ("skip", "GLOB"): "cells",
    ("only", "CELL"): "cells",
    ("cell", "CELL"): "cells",
    ("kernels", "None"): "kernels",
    ("a", "KERNEL"): "kernels",
    ("b", "KERNEL"): "kernels",
    ("spec", "SPEC"): "kernels",
    ("key", "KEY"): "stored",
}
_FUNCTIONS = sorted(set(_WORDS.values()))

# These words may stand in a list with commas. Without the first line, a word of bash ends at a colon, which
# debian:6.1 has.
_BASH = """\
COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}
_quizmatrix_{of}() {{
  compgen -P "${{1%"${{1##*,}}"}}" -W "$(quizmatrix completion bash --words {of} 2>/dev/null)" -- "${{1##*,}}"
}}
"""
_ZSH = """\
_quizmatrix_{of}() {{
  compset -P '*,'
  compadd -- ${{(f)"$(quizmatrix completion zsh --words {of} 2>/dev/null)"}}
}}
"""


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
    parser.add_argument(
        "--words",
        choices=["cells", "kernels", "stored"],
        help="print the words that the script asks for: what is known of cells, kernels, or kernels in the "
        "cache without a network",
    )


def completion(args: argparse.Namespace) -> int:
    """Print the completion script for a shell, or words for it."""
    if args.words:
        from quizmatrix.build import available

        print("\n".join(available.completions(args.words)))
        return 0
    import shtab

    from quizmatrix.cli.parser import parser
    from quizmatrix.model.options import REPORTS

    whole = parser()
    for action in _all_actions(whole):
        if action.nargs == 0:
            continue
        # shtab reads this attribute, which argparse's class does not have.
        if action.dest in _FILES.union(REPORTS):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif of := _WORDS.get((action.dest, str(action.metavar)), ""):
            function = f"_quizmatrix_{of}"
            action.complete = {  # type: ignore[attr-defined]
                "bash": function,
                "zsh": function,
                "tcsh": f"`quizmatrix completion tcsh --words {of}`",
            }
    template = {"bash": _BASH, "zsh": _ZSH}.get(args.shell, "")
    functions = "\n".join(template.format(of=of) for of in _FUNCTIONS)
    print(shtab.complete(whole, args.shell, preamble=functions))
    return 0


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found += _all_actions(child)
    return found
