"""Opens drgn on a guest's memory: interactively, or with a script."""

from __future__ import annotations

import builtins
import code
import importlib.util
import runpy
import sys
from pathlib import Path

import drgn.cli

from quizmatrix.core.json import decode_exactly
from quizmatrix.crash import dump
from quizmatrix.crash.memory import KeptMemory


def main(memory: str, script: list[str]) -> str | None:
    """Run a script with the opened kernel as `prog`, or the shell; returns why it cannot be opened.

    memory: a KeptMemory as JSON. script: a file, and its arguments.
    """
    try:
        program = dump.open_dump(decode_exactly(memory.encode(), KeptMemory))
    except dump.UnreadableError as error:
        return f"quizmatrix: {error}"
    drgn.set_default_prog(program)
    if script:
        sys.argv = script
        sys.path.insert(0, str(Path(script[0]).resolve().parent))
        runpy.run_path(script[0], init_globals={"prog": program}, run_name="__main__")
    else:
        _interact(program)
    return None


def _interact(program: drgn.Program) -> None:
    """A Python shell with what drgn's has. Not drgn's own: it imports from the current folder.

    That may be the one with the files that a guest left.
    """
    names = drgn.cli.default_globals(program)
    if importlib.util.find_spec("readline") is not None:
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    sys.displayhook = _show
    code.interact(
        f"drgn {drgn.__version__}; the kernel is `prog`. help(drgn) says more.", local=names, exitmsg=""
    )


def _show(value: object) -> None:
    """Print what a typed expression is: drgn's objects as drgn does."""
    if value is None:
        return
    builtins.__dict__["_"] = value
    print(str(value) if type(value).__module__ in ("drgn", "_drgn") else repr(value))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
