"""A cache of its own for what measures or checks builds: the user's, without some of it."""

import os
from pathlib import Path


def make(users: Path, cache: Path, *, without: tuple[str, ...]) -> Path:
    """Make the folder `cache`: links to what is in the user's cache."""
    cache.mkdir()
    for path in users.iterdir():
        if path.name not in without and not cache.is_relative_to(path):
            (cache / path.name).symlink_to(path)
    return cache


def link(users: Path, cache: Path, *, without: tuple[str, ...]) -> None:
    """Make such a folder, and let this process use it."""
    os.environ["QUIZMATRIX_CACHE_DIR"] = str(make(users, cache, without=without))
