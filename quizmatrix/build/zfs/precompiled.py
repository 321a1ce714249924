"""Lets the modules that OpenZFS's ./configure compiles share precompiled headers.

From some 250 small modules ./configure learns what a kernel has. The headers with which they begin are nearly
all that the compiler reads: with GCC's precompiled headers it needs a quarter of its time.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from quizmatrix.build.zfs.part import ZfsPart
from quizmatrix.core import process

# A make(1) and a compiler that stand before the real ones.
_PROGRAMS = Path(__file__).with_name("conftest")
_PLAIN = re.compile(r"[\w./+-]+")


def headers_dir(part: ZfsPart) -> Path:
    """The folder of a part's precompiled headers, while it is configured: some 100 MB."""
    return part.folder / "precompiled"


def environment(part: ZfsPart) -> dict[str, str]:
    """The variables with which ./configure does so; none where the kernel's compiler is not known.

    Raises HostError where there is no make(1).
    """
    compiler = _compiler_of(part)
    # Kbuild splits CC at blanks.
    if not compiler or not _PLAIN.fullmatch(str(_PROGRAMS)):
        return {}
    headers = headers_dir(part)
    headers.mkdir()
    return {
        "PATH": os.pathsep.join([str(_PROGRAMS), process.helper_path()]),
        "CONFTEST_MAKE": process.require_program("make", "make"),
        "CONFTEST_COMPILER": compiler,
        "CONFTEST_HEADERS": str(headers),
    }


def _compiler_of(part: ZfsPart) -> str:
    """The compiler of a part's modules; empty where it has none, or the user chose one, or it is not GCC."""
    if not part.made_for or any(
        word.startswith(("KERNEL_CC=", "KERNEL_LLVM=")) for word in part.options.configure
    ):
        return ""
    words = dict(word.split("=", 1) for word in part.configure if "=" in word)
    name = words.get("KERNEL_CC") or f"{part.environment.get('CROSS_COMPILE', '')}gcc"
    return name if "gcc" in Path(name).name else ""
