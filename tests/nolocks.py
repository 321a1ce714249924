"""Runs a program in which every file lock fails, as on a file system without locks.

    python -m tests.nolocks ENOLCK PROGRAM ARG...

The kernel itself refuses flock(2) and fcntl(2)'s locks, by seccomp(2): to this program and all it starts.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# Numbers of flock(2) and fcntl(2), by machine (the kernel's syscall tables), and its name in audit.h.
_CALLS = {"x86_64": (73, 72, 0xC000003E), "aarch64": (32, 25, 0xC00000B7)}
# F_GETLK, F_SETLK, F_SETLKW, and those of open file descriptions (fcntl.h).
_LOCKING = (5, 6, 7, 36, 37, 38)

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # of struct sock_filter (filter.h)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def refuse(number: int) -> None:
    """Make all file locks of this process fail with this errno."""
    flock, fcntl, machine = _CALLS[platform.machine()]
    count = len(_LOCKING)
    # Of struct seccomp_data: nr at 0, arch at 4, the low half of the second argument at 24.
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, count + 4, machine),
        (_LOAD, 0, 0, 0),
        (_EQUAL, count + 3, 0, flock),
        (_EQUAL, 0, count + 1, fcntl),
        (_LOAD, 0, 0, 24),
        *((_EQUAL, count - index, 0, command) for index, command in enumerate(_LOCKING)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | number),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - it is to become that
