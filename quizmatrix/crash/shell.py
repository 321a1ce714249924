"""Opens drgn on a guest's memory: interactively, or with a script."""

from __future__ import annotations

import runpy
import sys

import drgn.cli
import msgspec

from quizmatrix.crash import dump
from quizmatrix.crash.memory import KeptMemory


def main(memory: str, script: list[str]) -> str | None:
    """Run a script with the opened kernel as `prog`, or the shell; returns why it cannot be opened.

    memory: a KeptMemory as JSON. script: a file, and its arguments.
    """
    try:
        program = dump.open_dump(msgspec.json.decode(memory, type=KeptMemory))
    except dump.UnreadableError as error:
        return f"quizmatrix: {error}"
    drgn.set_default_prog(program)
    if script:
        sys.argv = script
        runpy.run_path(script[0], init_globals={"prog": program}, run_name="__main__")
    else:
        drgn.cli.run_interactive(program)
    return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
