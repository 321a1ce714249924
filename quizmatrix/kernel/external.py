"""What external modules are built against: a kernel's build tree, and the variables that its make(1) got."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.kernel import source
from quizmatrix.kernel.artifact import Kernel

_BUILD_IT = "Take a kernel that is built here: --source debian-source"


def check_source(spec: str) -> None:
    """Raise UnpreparedError where a source's kernels are not built here; called before fetching one."""
    if not source.source_named(source.parse_spec(spec).source).is_built:
        raise UnpreparedError(
            f"no modules can be built for {spec}",
            cause="it comes ready-made, without its build tree",
            next_step=_BUILD_IT,
        )


def require_build_tree(kernel: Kernel) -> Path:
    """The build tree of a kernel. Raises UnpreparedError where it has none, or has none any more."""
    tree = kernel.build_tree
    record = kernel.record
    if record.build is None:
        raise UnpreparedError(
            f"the kernel {record.release} has no build tree",
            cause="it comes ready-made",
            next_step=_BUILD_IT,
        )
    if tree is None:
        raise UnpreparedError(
            f"the kernel {record.release} has no build tree any more",
            cause=f"{record.build} was removed just now, or is being built in",
            next_step="Run this again: it builds the kernel again.",
        )
    return tree


def variables(kernel: Kernel) -> dict[str, str]:
    """The values of ARCH, CROSS_COMPILE and CC with which the kernel was built."""
    return dict(word.partition("=")[::2] for word in kernel.record.make)
