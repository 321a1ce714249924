"""Which commands a base image has by itself."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import tomlfile
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model.arch import Arch
from quizmatrix.model.cells import debian_suite

_FILE = Path(__file__).with_name("commands.toml")


def has_command(arch: Arch, image: str, word: str) -> bool:
    """Whether the base image has a command: as every image has it, or by a package of that name.

    image: as a matrix names it. Of a Debian image that is not stored yet, packages are not known.
    """
    if any(word in names for names in tomlfile.load(_FILE, dict[str, list[str]]).values()):
        return True
    suite = debian_suite(image)
    if suite is None:
        return False
    from quizmatrix.image import debian

    try:
        found = debian.find(arch, debian.choose_suite(arch, suite or None))
    except QuizmatrixError:
        return False  # what is wrong is said when the image is needed
    return found is not None and word in found.installed
