"""Decides whether a command line names files in the current folder, which a guest may not see."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Characters that separate file names in a shell script.
_BETWEEN_NAMES = re.compile(r"[\s;&|<>()'\"`=]+")
_PATTERN = re.compile(r"[*?\[]")


def shell_path(folder: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The path of `folder` in the user's shell (PWD, environ(7)); None where it is the real path."""
    name = environment.get("PWD", "")
    if not name.startswith("/") or os.path.normpath(name) != name or name == folder or "\n" in name:
        return None
    try:
        return name if Path(name).samefile(folder) else None
    except OSError:
        return None


def other_names(work_tree: str, command: Sequence[str], typed: str | None) -> dict[str, str]:
    """The symlinks outside of `work_tree` through which the command line, or `typed`, reaches into it.

    Returns the target of each. The guest needs these symlinks, since it has only the real path.
    """
    found: dict[str, str] = {}
    for path in (*([typed] if typed else []), *_absolute_paths(command)):
        for name in _leading_paths(path):
            if _is_below(name, work_tree):
                break  # symlinks in the folder itself are in the guest anyway
            real = os.path.realpath(name)
            if _is_below(real, work_tree):
                found[name] = real
                break
    return found


def _absolute_paths(command: Sequence[str]) -> Iterator[str]:
    words = _words_of_script(command[0]) if len(command) == 1 else command
    for word in words:
        if word.startswith("/") and "\n" not in word and "\0" not in word:
            yield os.path.normpath(word)


def _words_of_script(script: str) -> list[str]:
    try:
        return shlex.split(script)
    except ValueError:  # a missing closing quote
        return script.split()


def _leading_paths(path: str) -> Iterator[str]:
    """`/a`, `/a/b`, `/a/b/c` of `/a/b/c`."""
    at = path.find("/", 1)
    while at != -1:
        yield path[:at]
        at = path.find("/", at + 1)
    yield path


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def uses_files_in(folder: Path, command: Sequence[str], *, is_hidden: bool = False) -> bool:
    """Whether `command` probably uses files in `folder`. A script counts as if it always did.

    is_hidden: the user gave --no-work-tree; then only files that the command names count.
    """
    if len(command) > 1:
        # One of the words may be a script, as with `sh -c`.
        words = {*command, *(part for word in command for part in _BETWEEN_NAMES.split(word))}
        return any(_is_there(folder, word) for word in words)
    if len(folder.parts) > 2 and not is_hidden:
        return True
    # In / and /root, scripts are often started that do not use the files there.
    script = "".join(command)
    if not is_hidden and ("$PWD" in script or "pwd" in script or "./" in script):
        return True
    words = {*_words_of_script(script), *_BETWEEN_NAMES.split(script)}
    return any(_is_there(folder, word) for word in words)


def _is_there(folder: Path, word: str) -> bool:
    if not word or word.startswith("/"):
        return bool(word) and _is_below(word, str(folder)) and str(folder) != "/"
    try:
        if _PATTERN.search(word):
            return next(folder.glob(word), None) is not None
        return (folder / word).exists()
    except (OSError, ValueError, NotImplementedError):  # the word cannot be a file's name or pattern
        return False
