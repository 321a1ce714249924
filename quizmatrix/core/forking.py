"""Forks this process: a copy of it goes on with work of its own. Other programs are started by process.py."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# They end a process that does not expect them.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# prctl(2)
_PR_SET_PDEATHSIG = 1


def fork(work: Callable[[], None], say_into: Path) -> int:
    """Do this work in a copy of this process, which must have one thread; returns the copy's pid.

    It has a session of its own, dies when this process does, and ends with 0, or with 1 where the work raised
    something. say_into: the file for its stdout and stderr. Raises OSError.
    """
    import ctypes  # slow to import

    parent, prctl = os.getpid(), ctypes.CDLL(None, use_errno=True).prctl
    if pid := os.fork():
        return pid
    status = 1
    try:
        if prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() == parent:
            os.setsid()
            for number in ENDING_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            file = os.open(say_into, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(file, stream.fileno())
            work()
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(status)
