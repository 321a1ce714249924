"""Imports modules while a guest starts, since they are needed only after that.

A module that takes long to import is imported in the functions that use it, so that the first guest starts
sooner. The import, which would come when its command has ended, then takes the time in which QEMU starts.
"""

from __future__ import annotations

import importlib

_wanted: list[str] = []


def wanted(*names: str) -> None:
    """Name modules that will be needed."""
    _wanted.extend(names)


def load() -> None:
    """Import them."""
    while _wanted:
        importlib.import_module(_wanted.pop(0))
