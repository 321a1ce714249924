"""Lets the modules that OpenZFS's ./configure compiles share precompiled headers.

From some 250 small modules ./configure learns what a kernel has. The headers with which they begin are nearly
all that the compiler reads: with GCC's precompiled headers it needs a quarter of its time.
"""

from __future__ import annotations

import os
from pathlib import Path

from quizmatrix.build.zfs.part import ZfsPart
from quizmatrix.core.process import require_program

# A make(1) and a compiler that stand before the real ones.
_PROGRAMS = Path(__file__).with_name("conftest")


def headers_dir(part: ZfsPart) -> Path:
    """The folder of a part's precompiled headers, while it is configured: some 100 MB."""
    return part.folder / "precompiled"


def environment(part: ZfsPart) -> dict[str, str]:
    """The variables with which ./configure does so; none where the kernel's compiler is not known.

    Raises HostError where there is no make(1).
    """
    if not part.kernel_compiler:
        return {}
    headers = headers_dir(part)
    headers.mkdir()
    return {
        "PATH": os.pathsep.join([str(_PROGRAMS), os.environ.get("PATH", os.defpath)]),
        "QUIZMATRIX_MAKE": require_program("make", "make"),
        "QUIZMATRIX_COMPILER": part.kernel_compiler,
        "QUIZMATRIX_HEADERS": str(headers),
    }
