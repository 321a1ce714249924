"""The static programs of the small image: from Debian's packages, or built from their source."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from quizmatrix.core import paths
from quizmatrix.core.process import Tell
from quizmatrix.debian import apt
from quizmatrix.image import userland
from quizmatrix.image.artifact import SUITES
from quizmatrix.model.arch import Arch
from quizmatrix.model.archive import is_carried, load_archive

# By package: the program's name in the guest, and its possible paths in the package (merged /usr moved it).
_PROGRAMS: dict[str, tuple[str, ...]] = {
    "busybox-static": ("busybox", "bin/busybox", "usr/bin/busybox"),
}


async def fetch(arch: Arch, folder: Path, tell: Tell) -> dict[str, bytes]:
    """The static programs of the image, from the first suite that has them all; else they are built.

    folder: for temporary files.
    """
    debian = arch.facts.debian
    if debian is None or not is_carried(arch):
        return await userland.build_programs(arch, tell)
    carrying = [name for name, suite in load_archive().suite.items() if debian.arch in suite.arches]
    suites = [name for name in SUITES if name in carrying] or carrying
    found = await apt.ask_suites(
        suites, debian.arch, tell, partial(_programs_in, folder), is_first_enough=True
    )
    return found[0] if found else await userland.build_programs(arch, tell)


async def _programs_in(place: Path, root: apt.AptRoot) -> dict[str, bytes] | None:
    """The programs from a suite's packages; None where a package or program is missing."""
    packages = await root.show(*_PROGRAMS)
    if len(packages) != len(_PROGRAMS):
        return None
    with paths.scratch(place, "packages") as name:
        folder = Path(name)
        archives = await root.download(packages, folder)
        await apt.unpack(archives, folder / "unpacked")
        programs = {}
        for program, *places in _PROGRAMS.values():
            found = [folder / "unpacked" / place for place in places]
            path = next((path for path in found if path.is_file()), None)
            if path is None:
                return None
            programs[program] = path.read_bytes()
        return programs
