"""The build tree that external modules need, and the errors where it is missing."""

from __future__ import annotations

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import BuildTree


def require_build_tree(kernel: Kernel) -> BuildTree:
    """The build tree of a kernel. Raises UnpreparedError where it has none any more."""
    tree, record = kernel.build_tree, kernel.record
    if tree is not None:
        return tree
    removed = f"{record.build} was removed just now, or is being built in"
    raise UnpreparedError(
        f"the kernel {record.release} has no build tree any more",
        cause=removed if record.build else "its headers, or their compiler, were removed just now",
        next_step="Run this again: it makes the build tree again.",
    )
