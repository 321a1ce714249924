"""What a kernel's console says of its health."""

from __future__ import annotations

import re

# Before a line's text: `[    1.234567]`, `[T123]` and the like.
_PREFIX = re.compile(r"^(?:\s*\[[^\]]*\]\s?)+")

# What ends a kernel. The group is what went wrong.
_PANIC = (
    re.compile(r"Kernel panic - not syncing: (.*)"),
    re.compile(r"((?:Internal error: )?Oops\b.*)"),
    re.compile(r"(BUG: (?:unable to handle|kernel NULL).*)"),
    re.compile(r"(Unable to handle kernel .*)"),
    re.compile(r"(kernel BUG at .*)"),
    re.compile(r"(PANIC at .*)"),
    re.compile(r"(VERIFY\w*\(.*\) failed.*)"),
)

# What a kernel complains of and goes on after. Anchored: the words also occur in ordinary lines.
_SPLAT = re.compile(
    # WARN() of kernels old and new, and the titles of lockdep's reports: drivers write "WARNING:" too.
    r"(?:WARNING: (?:CPU: \d|\S+\.[chS]:\d+ at |at \S+\.[chS]:\d).*"
    r"|WARNING: (?:possible |inconsistent lock|bad unlock|bad contention|held lock|lock held|suspicious RCU"
    r"|Nested lock|\w+-safe -> |.* still has locks held).*"
    r"|BUG: .*"
    r"|UBSAN: .*"
    r"|INFO: task .* blocked for more than .*"
    r"|INFO: (?:possible|lockdep|rcu|inconsistent) .*"
    r"|(?:rcu: )?INFO: rcu\w* .*(?:stall|detected).*"
    r"|watchdog: BUG: soft lockup.*)"
)
_RESTART = re.compile(r"reboot: (?:Restarting system|machine restart|Power down|System halted)")
_ENDED = "quizmatrix: the command has ended"  # guest/agent
_OUT_OF_MEMORY = re.compile(r"(?:Memory cgroup out|Out) of memory: Killed process \d+ (\(.*?\))")

# A line longer than this is judged by its beginning.
_LONGEST_LINE = 4096
_SPLATS_KEPT = 20


class ConsoleWatch:
    """Reads a console as it comes and remembers what matters.

    panic: why the kernel stopped, or None. splats: its complaints, the first ones. panic_line,
    splat_line: the numbers of the lines where they begin, from 0, or None. restarted: the
    guest's own doing. ended: all that it said while the command ran has been seen. last_line: for
    a person to look at.
    """

    def __init__(self) -> None:
        """A console that has said nothing yet."""
        self.panic: str | None = None
        self.splats: list[str] = []
        self.panic_line: int | None = None
        self.splat_line: int | None = None
        self.restarted = False
        self.ended = False
        self.out_of_memory: str | None = None
        self.last_line = ""
        self._rest = b""
        self._line = -1

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the console."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._judge(line)
        if len(self._rest) > _LONGEST_LINE:
            self._judge(self._rest[:_LONGEST_LINE])
            self._rest = b""

    def finish(self) -> None:
        """The console has ended: judge a last line that had no end."""
        if self._rest:
            self._judge(self._rest)
            self._rest = b""

    def _judge(self, raw: bytes) -> None:
        self._line += 1
        line = raw[:_LONGEST_LINE].decode(errors="replace").strip("\r\n ")
        if not line:
            return
        self.last_line = line
        text = _PREFIX.sub("", line)
        for pattern in _PANIC:
            match = pattern.match(text)
            if match:
                self._panicked(match.group(1))
                return
        if _SPLAT.match(text):
            if self.splat_line is None:
                self.splat_line = self._line
            if len(self.splats) < _SPLATS_KEPT:
                self.splats.append(text)
        elif _RESTART.match(text):
            self.restarted = True
        elif text == _ENDED:
            self.ended = True
        else:
            match = _OUT_OF_MEMORY.match(text)
            if match:
                self.out_of_memory = match.group(1)

    def _panicked(self, reason: str) -> None:
        """The first reason stands: the panic that an oops leads to says only "Fatal exception"."""
        if self.panic is None:
            self.panic = reason
            self.panic_line = self._line


def first_trouble(console: bytes) -> int | None:
    """The number of the line, from 0, where a console's first panic or else splat begins."""
    watch = ConsoleWatch()
    watch.feed(console)
    watch.finish()
    return watch.panic_line if watch.panic_line is not None else watch.splat_line
