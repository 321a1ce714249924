"""What the kernel knows of a pipe (pipe(7))."""

from __future__ import annotations

import fcntl
import sys
import termios


def waiting(descriptor: int) -> int:
    """How many bytes can be read from a pipe at once. Raises OSError for what is no pipe or socket."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
