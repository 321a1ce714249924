"""Forks the process of each order off one that has imported most of what it needs.

A worker starts it, as `... forkserver SOCKET`, and it dies with the worker; the processes that it forks die
with it, and their guests with them. To start Python and to import takes more CPU time than all else that a
cell's process does.

SOCKET is a descriptor of a SOCK_SEQPACKET. Each question has a number, which the answer repeats. A question
with the path of an order's folder, and a descriptor for what is told (see cellprocess), is answered with the
pid of a new process, or with an error of the kernel as a negative number. One with such a pid is answered
with the exit status of the process, or with nothing while it has not ended.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import signal
import socket
import sys
from pathlib import Path

import anyio

from quizmatrix.core import forking
from quizmatrix.hosts import cellprocess

# In an order's folder: what its process writes to stdout and stderr, which is the reason why it died.
SAID = "said"

# The longest question, in bytes: a path and a number.
_LONGEST = 8192

# Of what a cell imports only once it needs it, what every cell needs.
_IMPORTED_LATE = ("quizmatrix.run.reproduce", "quizmatrix.subtests.reading")


def main(control: socket.socket) -> None:
    """Fork processes, until the worker closes the socket."""
    # Who ends all processes of a worker at once leaves it to the worker's cells to end their guests.
    for number in forking.ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
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
        question, _, asked = data.partition(b" ")
        if passed:
            with os.fdopen(passed[0], "wb", buffering=0) as out:
                answer = _fork(Path(os.fsdecode(asked)), out.fileno(), control)
        else:
            answer = _status_of(int(asked))
        control.send(b"%s %s" % (question, answer))


def _fork(folder: Path, out: int, control: socket.socket) -> bytes:
    """Carry out the order in `folder` in a new process; returns its pid."""

    def carry_out() -> None:
        control.close()
        cellprocess.main(folder, out)

    try:
        return str(forking.fork(carry_out, folder / SAID)).encode()
    except OSError as error:
        return str(-(error.errno or errno.EIO)).encode()


def _status_of(pid: int) -> bytes:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return str(os.waitstatus_to_exitcode(status)).encode() if ended else b""


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
