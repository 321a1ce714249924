"""Calls a function in a separate process, for work whose amount a guest decides.

A thread is not enough: Python runs one thread at a time. Reading half a million files or lines of results
would block the event loop, and with it the other cells' output and Ctrl-C, for a tenth of a second and more.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import quizmatrix
from quizmatrix.core import process
from quizmatrix.core.errors import HostError

R = TypeVar("R")

# Exit status of a child that has written an OSError to stdout.
_FAILED = 3


async def call(function: Callable[..., R], *arguments: str | bool | int, returns: Any) -> R:
    """Call a function of this package in a new process and return its result. Cancellation ends the process.

    returns: the type of the result. Raises any OSError that the function raises, and HostError if the process
    cannot be started or fails in another way.
    """
    import json  # unlike msgspec's, it takes paths that are not UTF-8

    name = f"{function.__module__}:{function.__qualname__}"
    argv, environment = own_module("quizmatrix.core.offload")
    done = await process.run([*argv, name, json.dumps(arguments)], env=environment)
    if done.status == _FAILED:
        number, text, path = msgspec.json.decode(done.output, type=tuple[int, str, str | None])
        raise OSError(number, text, path)
    if done.status != 0:
        raise HostError(f"a helper process ended with status {done.status}", cause=done.last_words)
    result: R = msgspec.json.decode(done.output, type=returns)
    return result


def own_module(name: str) -> tuple[list[str], dict[str, str]]:
    """The words that run a module of this package as a program, and the variables for that."""
    place = str(Path(quizmatrix.__file__).resolve().parents[1])
    return [sys.executable, "-P", "-m", name], {"PYTHONPATH": place}


def main(name: str, arguments: str) -> int:
    """In the child: call the function and print its result or its OSError; return the exit status."""
    import json

    module, _, function = name.partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    except OSError as error:
        told = (error.errno or 0, error.strerror or str(error), _path(error))
        sys.stdout.buffer.write(msgspec.json.encode(told))
        return _FAILED
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


def _path(error: OSError) -> str | None:
    return ascii(error.filename) if isinstance(error.filename, str | bytes) else None


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    raise SystemExit(status)
