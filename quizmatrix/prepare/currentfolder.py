"""Decides whether a command line names files in the current folder, which a guest may not see."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# What a shell does not take as part of a file's name.
_BETWEEN_NAMES = re.compile(r"[\s;&|<>()'\"`=]+")
_PATTERN = re.compile(r"[*?\[]")


def as_typed(folder: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The name by which the user's shell knows `folder` (environ(7), PWD); None where it is its own path."""
    name = environment.get("PWD", "")
    if not name.startswith("/") or os.path.normpath(name) != name or name == folder or "\n" in name:
        return None
    try:
        return name if Path(name).samefile(folder) else None
    except OSError:
        return None


def other_names(work_tree: str, command: Sequence[str], typed: str | None) -> dict[str, str]:
    """Paths by which the command line, or `typed`, reaches into `work_tree` through symbolic links.

    Each with what it has to be a link to in the guest, which has the real path alone.
    """
    found: dict[str, str] = {}
    for path in (*([typed] if typed else []), *_absolute_paths(command)):
        for name in _leading_paths(path):
            if _is_below(name, work_tree):
                break  # the links in the folder itself are seen with it
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
    except ValueError:  # a quotation that does not end
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


def is_meant(folder: Path, command: Sequence[str], *, is_hidden: bool = False) -> bool:
    """Whether `command` speaks of files in `folder`, as far as can be seen. A script may always do.

    is_hidden: the user asked for that (--no-work-tree), and is told only of files that will surely be missed.
    """
    if len(command) > 1:
        # `sh -c` has its script in a word of its own.
        words = {*command, *(part for word in command for part in _BETWEEN_NAMES.split(word))}
        return any(_is_there(folder, word) for word in words)
    if len(folder.parts) > 2 and not is_hidden:
        return True
    # Many a script is started from / or from root's home that has nothing to do with what is there.
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
    except (OSError, ValueError, NotImplementedError):  # any word at all
        return False
