"""Options that limit mksquashfs(1): by default it uses all CPUs and a quarter of the host's memory."""

from __future__ import annotations

from quizmatrix.core import process
from quizmatrix.core.memory import available_memory

# It gets one fourth of the available memory, but at least 64 MiB: with less it does not work well.
_SHARE = 4
_MIN_MEMORY = 64


def limits() -> list[str]:
    """Options that keep mksquashfs within our CPUs and memory, as in a container."""
    memory = max(_MIN_MEMORY, available_memory() // _SHARE)
    return ["-processors", str(process.usable_cpus()), "-mem", f"{memory}M"]
