"""The version of this quizmatrix: hosts with another one are refused."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

import quizmatrix


@functools.cache
def version() -> str:
    """The version, with a hash of the package's files: between releases, hosts may differ, too."""
    top = Path(quizmatrix.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        digest.update(f"{path.relative_to(top)}\0".encode())
        digest.update(path.read_bytes())
    return f"{metadata.version('quizmatrix')}+{digest.hexdigest()[:8]}"
