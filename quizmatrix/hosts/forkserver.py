"""Forks the process of each order off one that has imported all that it needs: `... forkserver SOCKET`.

A worker starts it, and it dies with the worker; the processes that it forks die with it, and their guests
with them. To start Python and to import would take longer than all that a cell's process then does.

SOCKET is a descriptor of a SOCK_SEQPACKET. A message with the path of an order's folder and a descriptor for
what is told (see cellprocess) is answered with the pid of a new process; a message with such a pid with the
exit status of the process that has ended, or with nothing but a space while it has not.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from pathlib import Path

import anyio

from quizmatrix.core import process
from quizmatrix.hosts import cellprocess

# In an order's folder: what its process writes to stdout and stderr, which is the reason why it died.
SAID = "said"

# The longest message, in bytes: a path.
_LONGEST = 4096

# What a cell imports only once it needs it.
_IMPORTED_LATE = ("quizmatrix.run.reproduce", "quizmatrix.subtests.reading")


def main(control: socket.socket) -> None:
    """Fork processes, until the worker closes the socket."""
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    # It, too, imports the most of itself when it is first used.
    anyio.run(anyio.sleep, 0)
    # The collector would write to what is here now, which the memory of all of them shares.
    gc.freeze()
    while True:
        data, passed, _, _ = socket.recv_fds(control, _LONGEST, 1)
        if not data:
            return
        if passed:
            pid = _fork(Path(os.fsdecode(data)), passed[0], control)
            os.close(passed[0])
            control.send(str(pid).encode())
        else:
            control.send(_status_of(int(data)))


def _fork(folder: Path, out: int, control: socket.socket) -> int:
    """Carry out the order in `folder` in a new process; returns its pid."""

    def carry_out() -> None:
        control.close()
        cellprocess.main(folder, out)

    return process.fork(carry_out, folder / SAID)


def _status_of(pid: int) -> bytes:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # It was forked by a server before this one, and died with it.
        return str(-signal.SIGKILL).encode()
    return str(os.waitstatus_to_exitcode(status)).encode() if ended else b" "


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
