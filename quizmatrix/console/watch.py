"""Watches a kernel's console for findings, panics, restarts and out-of-memory kills."""

from __future__ import annotations

import re

import msgspec

from quizmatrix.console.blocks import BlockReader
from quizmatrix.console.titles import without_time
from quizmatrix.model.finding import Finding

# Messages of a restart on request: by reboot(2), or by /proc/sysrq-trigger.
_RESTART = re.compile(
    r"reboot: (?:Restarting system|machine restart|Power down|System halted)|sysrq: (?:Resetting|Power Off)"
)
_ENDED = "quizmatrix: the command has ended"  # guest/programs/agent.c
_OUT_OF_MEMORY = re.compile(r"(?:Memory cgroup out|Out) of memory: Killed process \d+ (\(.*?\))")

# Of a longer line only this many bytes are read.
_LONGEST_LINE = 4096
# The largest number of different findings that are kept, and of all findings that are read: a guest may print
# them without end.
_FINDINGS_KEPT = 40
_FINDINGS_READ = 2000


class LineSplitter:
    """Splits bytes into lines; of a line that is too long, only the beginning is returned."""

    def __init__(self) -> None:
        """No data yet."""
        self._rest = b""
        self._is_in_long_line = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that are now complete."""
        if self._is_in_long_line:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return []
            self._is_in_long_line = False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
            self._is_in_long_line = True
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line if it had no line feed."""
        lines = [self._rest] if self._rest else []
        self._rest = b""
        return lines


class ConsoleWatch:
    """Reads a console while it is written, and records the important events.

    panic: why the kernel stopped, or None. panic_line: the number of that line, from 0.
    unread: the number of findings that are not in `findings`.
    restarted: whether the guest restarted or powered off on request.
    ended: whether everything that was printed during the command has been read.
    out_of_memory: the process that the OOM killer killed, or None.
    last_line: the last line that was not empty.
    """

    def __init__(self) -> None:
        """No data yet."""
        self.panic: str | None = None
        self.panic_line: int | None = None
        self.unread = 0
        self.restarted = False
        self.ended = False
        self.out_of_memory: str | None = None
        self.last_line = ""
        self._lines = LineSplitter()
        self._line = -1
        self._read = 0
        self._findings: dict[str, Finding] = {}
        self._blocks = BlockReader(self._keep)

    @property
    def findings(self) -> list[Finding]:
        """The findings whose blocks have ended, in order; after `finish` all of them."""
        return list(self._findings.values())

    @property
    def lines(self) -> int:
        """The number of lines so far."""
        return self._line + 1

    @property
    def splats(self) -> list[str]:
        """The titles of the findings that are not fatal."""
        return [finding.title for finding in self._findings.values() if not finding.kind.is_fatal]

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the console."""
        for line in self._lines.feed(data):
            self._read_line(line)

    def finish(self) -> None:
        """The console has ended: read a last line without a line feed, too."""
        for line in self._lines.finish():
            self._read_line(line)
        self._blocks.close()

    def _read_line(self, raw: bytes) -> None:
        self._line += 1
        line = raw[:_LONGEST_LINE].decode(errors="replace").strip("\r\n ")
        if line:
            self.last_line = line
        text = without_time(line)
        title = self._blocks.feed(self._line, text, is_read=self._read < _FINDINGS_READ)
        if title is not None:
            self._read += 1
            self.unread += self._read > _FINDINGS_READ
            # The first reason is kept: a panic caused by an oops says only "Fatal exception".
            if title.kind.is_fatal and self.panic is None:
                self.panic = title.reason
                self.panic_line = self._line
        elif _RESTART.match(text):
            self.restarted = True
        elif text == _ENDED:
            self.ended = True
        elif match := _OUT_OF_MEMORY.match(text):
            self.out_of_memory = match.group(1)

    def _keep(self, finding: Finding) -> None:
        known = self._findings.get(finding.fingerprint)
        if known is not None:
            self._findings[finding.fingerprint] = msgspec.structs.replace(known, count=known.count + 1)
        elif len(self._findings) < _FINDINGS_KEPT:
            self._findings[finding.fingerprint] = finding
        else:
            self.unread += 1


def first_finding(console: bytes) -> int | None:
    """The line number, from 0, of a console's panic, or of its first other finding; None without any."""
    watch = ConsoleWatch()
    watch.feed(console)
    watch.finish()
    splats = [finding.line for finding in watch.findings if not finding.kind.is_fatal]
    return watch.panic_line if watch.panic_line is not None else next(iter(splats), None)
