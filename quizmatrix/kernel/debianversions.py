"""Checks the text after `debian:` and `debian-source:`, and decides which versions fit it."""

from __future__ import annotations

from quizmatrix.core.version import KernelVersion
from quizmatrix.model.arch import Arch

NEWEST = "newest"
# Part of every key; has to be changed when something else is made from the same packages.
RECIPE = "2"


def check_version(wanted: str) -> str:
    """Check the part of a specification after `debian:`. Raises ValueError where it is no version."""
    if wanted == NEWEST:
        return wanted
    version = KernelVersion(wanted)
    if not version.is_upstream:
        raise ValueError(f"no version that Debian's archive can have: {wanted!r}")
    return version.text


def is_exact(wanted: str) -> bool:
    """Whether `wanted` is one version, and neither a series nor `newest`."""
    return wanted != NEWEST and not KernelVersion(wanted).is_series


def fits(version: KernelVersion, wanted: str) -> bool:
    """Whether a version is the wanted one. wanted: `newest`, a series, or an exact version."""
    if wanted == NEWEST:
        return True
    asked = KernelVersion(wanted)
    return version.series == asked.series and (asked.is_series or version == asked)


def recipe(_wanted: str, arch: Arch) -> str:
    """A text that names all that a stored kernel depends on, except its packages."""
    return f"{RECIPE} {arch.facts.kernel.image}"
