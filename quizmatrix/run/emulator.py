"""Which QEMU this is, and what its version means for a guest."""

from __future__ import annotations

import functools
import re

from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model.arch import Accelerator, Arch


@functools.cache
def version_of(binary: str) -> str | None:
    """The version that QEMU's program says it has; None: it says none, or is not installed."""
    try:
        said = process.run_blocking([binary, "--version"]).output.decode(errors="replace")
    except (QuizmatrixError, OSError):
        return None
    found = re.search(r"version (\S+)", said)
    return found.group(1) if found else None


def is_one_thread(arch: Arch, accelerator: Accelerator, cpus: int) -> bool:
    """Whether this host's QEMU has to emulate all CPUs of a guest in one thread (see Qemu.threads_from)."""
    qemu = arch.facts.qemu
    if cpus == 1 or accelerator is not Accelerator.TCG or qemu.threads_from is None:
        return False
    version = version_of(qemu.binary)
    return version is not None and _numbers(version) < _numbers(qemu.threads_from)


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version: `8.1.0-rc2` begins as 8.1 does."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found.group().split(".")) if found else ()
