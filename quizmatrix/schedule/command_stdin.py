"""The command's stdin: what the options say about it, and a copy where it can be read only once."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import msgspec

from quizmatrix.core import paths, private
from quizmatrix.core.errors import UsageError, host_error
from quizmatrix.model.options import RunOptions, RunRequest, with_values
from quizmatrix.model.spec import OWN_STDIN
from quizmatrix.run import stdin
from quizmatrix.run.stdin import OwnSource
from quizmatrix.schedule.commandline import repeating
from quizmatrix.schedule.plan import Plan

# The file in a run directory with the bytes from a pipe, which every cell gets.
KEPT = "stdin"


def file_of(given: str | None) -> str | None:
    """Check the FILE of --stdin; returns its path, `-`, or None where none is given.

    Raises UsageError where it cannot be read, or is a folder or a device.
    """
    if given is None or given == OWN_STDIN:
        return given
    path = Path(given)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(given, error.strerror or str(error)) from error
    # It must not be opened: the writer of a FIFO would take that for its reader.
    if not os.access(path, os.R_OK):
        raise _unreadable(given, "permission denied")
    if stat.S_ISCHR(mode) and not path.samefile(os.devnull):
        raise UsageError(
            f"--stdin {given}",
            cause="a device may have no end",
            next_step="Pass what you want of it through a pipe: head -c 1M DEVICE | quizmatrix run --stdin -",
        )
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        raise UsageError(f"--stdin {given}", cause="it is no file")
    return str(path.absolute())


def _unreadable(name: str, why: str) -> UsageError:
    return UsageError(f"--stdin {name} cannot be read", cause=why)


def own_source(request: RunRequest, *, is_single: bool) -> OwnSource | None:
    """Quizmatrix's own stdin, if the only cell of a run reads it; else None.

    With -S the terminal reads it, and a nightly run has none.
    """
    options = request.options
    if not is_single or options.guest.stdin is not None or options.once.shell or request.unattended:
        return None
    return stdin.own_source()


def with_stdin(options: RunOptions, plan: Plan, run: Path, source: OwnSource | None) -> Plan:
    """The plan with the command's stdin: `source`, or a file that every cell gets.

    The command lines that repeat a cell name that file, too. run: the run directory.
    """
    path = OWN_STDIN if source else file_for_all_cells(plan.guest.stdin, run)
    given = options.guest.stdin
    if path is not None and path == str(run / KEPT):
        given = path
    elif path is None and given is None:
        # Several cells read /dev/null. Repeated alone, a cell would else read the stdin of its user.
        given = os.devnull
    if given != options.guest.stdin:
        plan = msgspec.structs.replace(plan, repeat=repeating(with_values(options, {"stdin": given})))
    guest = msgspec.structs.replace(plan.guest, stdin=path)
    return msgspec.structs.replace(plan, guest=guest)


def file_for_all_cells(path: str | None, run: Path) -> str | None:
    """The file for every cell: `path`, or a copy of its bytes where it can be read only once (`-`, a FIFO).

    The copy is in the run directory `run`, where --resume finds it. Raises HostError where writing fails.
    """
    if path is None or (path != OWN_STDIN and Path(path).is_file()):
        return path
    if path != OWN_STDIN and Path(path).is_char_device():
        return None  # /dev/null
    place = run / KEPT
    if not place.exists():
        try:
            with Path(path).open("rb") if path != OWN_STDIN else sys.stdin.buffer as source:
                pieces = iter(lambda: source.read(1 << 20), b"")
                paths.write_atomic(place, pieces, mode=private.FILE_MODE)
        except OSError as error:
            raise host_error(f"keep what --stdin {path} gives", error) from error
    return str(place)
