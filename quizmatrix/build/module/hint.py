"""Explains why a guest lacks a module that the command names: it was built for another kernel.

`run` takes Debian's ready-made kernels where they exist, but modules are built for kernels built on this
host.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.kernel import buildlayer, source
from quizmatrix.kernel.order import options_of
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell

# The source of kernels that are built here, where none is named.
BUILT = "debian-source"


def module_names_of(reference: buildlayer.LayerReference) -> set[str]:
    """The names of the built modules, as `modprobe` takes them."""
    return {name for layer in reference.layers for name in buildlayer.module_names(Path(layer))}


def _built_for(key: str) -> set[str]:
    """The names of all modules that were built for a kernel."""
    return {name for reference in buildlayer.module_references(key) for name in module_names_of(reference)}


def missing_module(cells: Sequence[Cell], command: Sequence[str]) -> str | None:
    """A hint, if the command names a module that was built for kernels of `BUILT`, and the cells have others.

    None where there is nothing to say.
    """
    words = {word.replace("-", "_") for word in re.findall(r"[\w-]+", " ".join(command))}
    built = {key: found for key in buildlayer.kernels() if (found := words & _built_for(key))}
    missed: dict[str, set[str]] = {}
    for cell in cells if built else ():
        with contextlib.suppress(QuizmatrixError):
            spec = source.parse_spec(cell.kernel_spec)
            if source.source_named(spec.source).is_built:
                continue
            kernel = source.find(f"{BUILT}:{spec.wanted}", load_arch(cell.arch), options_of(cell))
            if kernel is not None and kernel.record.key in built:
                missed[cell.id] = built[kernel.record.key]
    if not missed:
        return None
    names = ", ".join(sorted(set().union(*missed.values())))
    return (
        f"{names} was built for kernels of {BUILT}, and {', '.join(missed)} "
        f"{'is' if len(missed) == 1 else 'are'} ready-made: --source {BUILT} takes those"
    )
