"""What results.json says of the host that ran a cell."""

from __future__ import annotations

import os
from pathlib import Path

from quizmatrix.model.arch import load_arch
from quizmatrix.model.result import HostFacts
from quizmatrix.run.emulator import version_of

# The lines of /proc/cpuinfo that name the CPU: of x86, s390, POWER, and others.
_NAMES = {"model name", "processor 0", "cpu", "Model Name", "CPU part"}


def facts_for(arch: str) -> HostFacts:
    """This host, and its QEMU for guests of an architecture."""
    return HostFacts(
        name=os.uname().nodename, qemu=version_of(load_arch(arch).facts.qemu.binary) or "", cpu=_cpu()
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((text.strip() for name, _, text in fields if name.strip() in _NAMES), os.uname().machine)
