"""Options that limit mksquashfs(1): by default it uses all CPUs and a quarter of the host's memory."""

from __future__ import annotations

from quizmatrix.core import process
from quizmatrix.core.memory import available_memory

# The part of the memory that is left which it may take, and MiB below which it does not work well.
_SHARE = 4
_LEAST = 64


def limits() -> list[str]:
    """Options that keep it within what is left for us, as in a container."""
    memory = max(_LEAST, available_memory() // _SHARE)
    return ["-processors", str(process.usable_cpus()), "-mem", f"{memory}M"]
