"""Says how far dpkg(1) has come in a guest, where it takes minutes."""

from __future__ import annotations

import re

from quizmatrix.core.process import Tell

# dpkg's line for a package, at the beginning of each of its two steps.
_LINE = re.compile(rb"^(Unpacking|Setting up) \S+ \(")
# Something is said after each of so many parts of the work.
_PARTS = 10
# A line that is longer is none of dpkg's.
_LONGEST_LINE = 4096


class DpkgProgress:
    """Counts packages in dpkg's output."""

    def __init__(self, packages: int, tell: Tell) -> None:
        """packages: how many there are to install. tell: is called with what is said."""
        self._packages = packages
        self._tell = tell
        self._rest = b""
        self._counts = {b"Unpacking": 0, b"Setting up": 0}
        self._said = 0

    async def read(self, piece: bytes) -> None:
        """Take the next piece of the output, which may end anywhere."""
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in filter(None, map(_LINE.match, lines)):
            self._counts[line[1]] += 1
        part = sum(self._counts.values()) * _PARTS // (2 * self._packages)
        if part > self._said:
            self._said = part
            unpacked, configured = self._counts.values()
            self._tell(f"{unpacked} of {self._packages} packages unpacked, {configured} configured")
