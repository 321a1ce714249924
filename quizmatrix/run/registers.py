"""Where the CPUs of a guest are that no longer answers: QEMU's registers, with the names of System.map."""

from __future__ import annotations

import bisect
import re
from pathlib import Path

import anyio

from quizmatrix.run.qmp import Monitor

# How often the CPUs are looked at, and the seconds between two looks: a loop has several places.
_LOOKS = 3
_PAUSE = 0.1

# The program counter in QEMU's `info registers`, CPU by CPU: of x86, s390x, ppc64, arm64 and loongarch64,
# riscv64 (QEMU, target/*, *_cpu_dump_state).
_COUNTER = re.compile(r"(?:\bRIP=|\baddr |\bNIP +|\bPC=|\bpc +)([0-9a-f]{8,16})\b")
_SYMBOL = re.compile(r"^([0-9a-f]+) [tTwW] (\S+)$", re.MULTILINE)
# Such a kernel may be anywhere in memory (KASLR).
_MOVED = "\nCONFIG_RANDOMIZE_BASE=y\n"
# No function is larger than this: an address far behind the last symbol is in a module.
_FUNCTION_AT_MOST = 1 << 20


async def counters(monitor: Monitor) -> list[list[int]]:
    """The program counter of each CPU, at each look. Raises QmpError if QEMU does not answer."""
    looks: list[list[int]] = []
    for _ in range(_LOOKS):
        said = await monitor.ask("human-monitor-command", **{"command-line": "info registers -a"})
        looks.append([int(text, 16) for text in _COUNTER.findall(said)])
        await anyio.sleep(_PAUSE)
    return looks


def places(looks: list[list[int]], kernel: Path) -> list[str]:
    """Where each CPU was: `CPU 0: name+0x12`, or the address where no name is known.

    looks: from `counters`. kernel: its folder, with System.map and its configuration.
    """
    names = _Names(kernel)
    return [
        f"CPU {cpu}: {', '.join(dict.fromkeys(names.of(counter) for counter in seen))}"
        for cpu, seen in enumerate(zip(*looks, strict=False))
    ]


class _Names:
    """The names of a kernel's functions, by address."""

    def __init__(self, kernel: Path) -> None:
        try:
            is_moved = _MOVED in (kernel / "config").read_text(errors="replace")
            text = "" if is_moved else (kernel / "System.map").read_text(errors="replace")
        except OSError:
            text = ""
        found = sorted((int(address, 16), name) for address, name in _SYMBOL.findall(text))
        self._addresses = [address for address, _ in found]
        self._names = [name for _, name in found]

    def of(self, address: int) -> str:
        """`name+0xoffset`, or the address where no name is known."""
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0 or address - self._addresses[at] > _FUNCTION_AT_MOST:
            return f"{address:#x}"
        return f"{self._names[at]}+{address - self._addresses[at]:#x}"
