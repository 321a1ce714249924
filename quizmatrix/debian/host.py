"""Checks whether this host has the tools and the keyring to fetch from Debian's archive."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.errors import HostError
from quizmatrix.debian import apt
from quizmatrix.model.archive import load_archive

# What fetches and unpacks packages, with Debian's packages of it.
TOOLS = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}


def obstacle() -> HostError | None:
    """Why nothing of Debian's archive can be had on this host: a program or the keyring is missing."""
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
