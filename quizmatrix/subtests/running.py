"""Which test was running when a guest died or was stopped, and what it had printed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from quizmatrix.core import paths, untrusted
from quizmatrix.core.text import clean_line
from quizmatrix.subtests.openzfs import name_of

# The end of the output of the test that was running, in the cell's folder.
FILE = "running.log"

# In a guest's /shared, the file that zfs_test_runner.py of the profile ztest writes: the test's path, a line
# feed, and the end of its output.
LIVE = "test_results/running.log"

# So much is read of that file's beginning and end, and of the console's end.
_HEAD = 4096
_TAIL = 64 << 10
_CONSOLE = 1 << 20

# What is in the kernel's log as a test begins: of OpenZFS's runner (zfs-tests.sh -K), of xfstests, of
# blktests, and of other scripts.
_ANNOUNCED = re.compile(
    rb"ZTS run (/\S{1,1000})|run (?:fstests|blktests) (?=\S{1,100} at \d{4}-)(\S{1,100})"
    rb"|quizmatrix: begins (\S[^\r\n]{0,1000})"
)
# What that runner calls after a test that it has killed: its result is still to come.
_CALLBACK = b"/zfs-tests/callbacks/"


def take(live: Path, folder: Path) -> str:
    """The name of the test in the file that the guest left; what it had printed is kept as FILE in `folder`.

    Empty if there is none. Raises OSError if FILE cannot be written.
    """
    try:
        with untrusted.open_regular(live) as file:
            head = file.read(_HEAD)
            name, line_feed, _ = head.partition(b"\n")
            size = os.fstat(file.fileno()).st_size
            file.seek(max(len(name) + 1, size - _TAIL))
            printed = file.read(_TAIL)
    except OSError:
        return ""
    if not (name and line_feed):
        return ""
    if printed:
        paths.write_atomic(folder / FILE, printed)
    return name_of(os.fsdecode(name))


def announced(console: Path) -> str:
    """The last test that was announced in the kernel's log, on the console; empty if none was."""
    try:
        found = _ANNOUNCED.findall(untrusted.read_end(console, _CONSOLE))
    except OSError:
        return ""
    found = [names for names in found if _CALLBACK not in names[0]]
    if not found:
        return ""
    path, name, other = (clean_line(text.decode(errors="replace"), 1000).rstrip() for text in found[-1])
    return name_of(path) if path else name or other
