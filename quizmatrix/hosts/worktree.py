"""What of the current folder stays at home: large files and folders that git ignores."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.folders import disk_usage
from quizmatrix.core.text import clean_line, first_of

# Ignored files and folders that are larger, in bytes, stay at home: vmlinux, build folders, and the like.
LIMIT = 32 << 20


async def left_out(folder: Path) -> frozenset[str]:
    """The paths in a folder, relative to it, that do not travel; none where it is not of git."""
    words = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    done = await process.run(["git", "-C", str(folder), *words])
    if done.status != 0:
        return frozenset()
    ignored = [
        name.rstrip(b"/").decode(errors="surrogateescape") for name in done.output.split(b"\0") if name
    ]
    return frozenset(name for name in ignored if _size(folder / name) > LIMIT)


def _size(path: Path) -> int:
    try:
        return disk_usage(path) if path.is_dir() and not path.is_symlink() else path.lstat().st_size
    except OSError:
        return 0


def sentence(paths: Collection[str]) -> str:
    """What a user has to know of that."""
    limit = f"more than {LIMIT >> 20} MiB that git ignores: --whole-tree sends"
    return f"{_stay(paths)}: {limit} {_it(paths)}"


def unreadable_sentence(paths: Collection[str]) -> str:
    """What a user has to know of paths that he may not read."""
    return f"{_stay(paths)}: you may not read {_it(paths)}"


def _stay(paths: Collection[str]) -> str:
    named = first_of([clean_line(path) for path in sorted(paths)])
    return f"{named} {'stays' if len(paths) == 1 else 'stay'} here"


def _it(paths: Collection[str]) -> str:
    return "it" if len(paths) == 1 else "them"
