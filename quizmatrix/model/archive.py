"""Debian's suites: their mirrors, architectures and kernel series."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import msgspec

from quizmatrix.core import paths, tomlfile
from quizmatrix.model.arch import Arch

_FILE = Path(__file__).with_name("debian.toml")


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """One suite of the archive (quizmatrix/model/debian.toml describes the keys)."""

    name: str | None = None
    keyring: str | None = None
    mirrors: list[str]
    arches: list[str]
    components: tuple[str, ...] = ("main", "contrib")
    series: list[str] = []
    newest: bool = False
    compilers: str | None = None
    check_valid_until: bool = True


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The suites by name, and the keyring that verifies their signatures."""

    keyring: str | None = None
    suite: dict[str, Suite] = {}

    def suites_of(self, series: str, arch: str) -> list[str]:
        """The suites that may have kernels of a series for Debian's `arch`.

        These are the suites that list the series. If no suite at all lists it, they are the suites that list
        no series.
        """
        carrying = {name: suite for name, suite in self.suite.items() if arch in suite.arches}
        known = [name for name, suite in carrying.items() if series in suite.series]
        anywhere = [name for name, suite in carrying.items() if not suite.series]
        listed = any(series in suite.series for suite in self.suite.values())
        return known or ([] if listed else anywhere)


def load_archive() -> Archive:
    """The shipped suites, with the keys that the user's `debian.toml` replaces; DataError if one is wrong."""
    own = paths.config_dir() / "debian.toml"
    try:
        now = own.stat()
    except OSError:
        return _read(own, None)
    return _read(own, (now.st_mtime_ns, now.st_size))


@lru_cache(maxsize=1)
def _read(own: Path, _state: tuple[int, int] | None) -> Archive:
    """Read both files. Every cell of a matrix asks for them, so they are read again only once they change."""
    return tomlfile.load_over(_FILE, own, Archive)


def is_carried(arch: Arch) -> bool:
    """Whether a suite has packages of the architecture."""
    return arch.facts.debian is not None and has_kernels_for(arch.facts.debian.arch)


def has_kernels_for(arch: str, series: str = "") -> bool:
    """Whether a suite may have kernels for Debian's `arch`, of the given series or of any."""
    archive = load_archive()
    if series:
        return bool(archive.suites_of(series, arch))
    return any(arch in suite.arches for suite in archive.suite.values())
