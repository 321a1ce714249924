"""Checks whether this host has the tools and the keyring to fetch from Debian's archive."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.errors import HostError
from quizmatrix.debian import apt
from quizmatrix.model.archive import load_archive

# The programs that fetch and unpack packages, with their Debian packages.
TOOLS = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}


def obstacle() -> HostError | None:
    """Why this host cannot use Debian's archive (a program or the keyring is missing); None if it can."""
    try:
        for program, package in TOOLS.items():
            process.require_program(program, package)
        archive = load_archive()
        keyrings = [archive.keyring, *(suite.keyring for suite in archive.suite.values())]
        if not any(keyring and Path(keyring).is_file() for keyring in keyrings):
            return apt.no_keyring(archive.keyring or "")
    except HostError as error:
        return error
    return None
