"""The version of this quizmatrix: hosts with another one are refused."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

import quizmatrix
from quizmatrix.core import paths


@functools.cache
def version() -> str:
    """The version, with a hash of all that ships: between releases, hosts may differ, too."""
    digest = hashlib.sha256()
    tops = {Path(quizmatrix.__file__).parent: "*.py"}
    tops |= {paths.data_dir(name): "*" for name in ("arch", "guest", "kernel-configs")}
    for top, names in tops.items():
        for path in sorted(top.rglob(names)):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(top)}\0".encode())
                digest.update(path.read_bytes())
    return f"{metadata.version('quizmatrix')}+{digest.hexdigest()[:8]}"
