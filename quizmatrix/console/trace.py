"""Collects the console lines that belong to one finding: its title, its trace and its registers."""

from __future__ import annotations

import re

from quizmatrix.console.fingerprint import FRAME, fingerprint, functions
from quizmatrix.console.titles import Title
from quizmatrix.model.finding import Finding, FindingKind

# The parts of one block that are kept.
_MAX_LINES = 200
_MAX_CHARACTERS = 20_000
_LONGEST_LINE = 500

# A block ends after this many unrelated lines in a row; lines of other CPUs or of drivers may come between.
_PATIENCE_BEFORE_TRACE = 40
_PATIENCE = 6
# Reports with prose and empty lines between their traces.
_PATIENCE_WITH_PROSE = 15
_WITH_PROSE = frozenset(
    {
        FindingKind.KASAN,
        FindingKind.KMSAN,
        FindingKind.KCSAN,
        FindingKind.KFENCE,
        FindingKind.LOCKDEP,
        FindingKind.RCU_STALL,
    }
)

# Lines that only a trace has, on all architectures. A register is a short name with 8 or 16 digits.
_OF_A_TRACE = re.compile(
    r"\s*(?:</?[A-Z_]{3,}>|Call Trace:|Call trace:|[Ss]tack(?: backtrace)?:|Backtrace:|Code: "
    r"|Modules linked in:"
    r"|CPU: \d|CPU#\d|Hardware name:|Workqueue: |Tainted: |Not tainted|task:|Showing stack for|SPL: Showing"
    r"|RIP: |RSP: |EFLAGS|RAX: |PKRU: |CR2: |CR\d: |PGD |PUD |#PF: |FS: |CS: "
    r"|Krnl |User PSW|\s+R:\d T:\d|Last Breaking-Event|Failing address|Fault in |AS:"
    r"|NIP:? |LR:? |REGS: |MSR: |GPR\d\d: |CFAR: |IRQMASK: |Faulting |Instruction dump:|[BL]E PAGE_SIZE"
    r"|[0-9a-fX<>() ]{24,}$|[#*> ]*[0-9a-f]{8,16}: |--- interrupt"
    r"|Mem abort info|Data abort info|ESR = |pstate: |epc : |status: |ERA: |CRMD: |ESTAT: |BADV: |PRMD: "
    r"|Memory state around|Allocated by|Freed by|The buggy addr|(?:Read|Write|write|read|race) (?:of|at|to) "
    r"|PANIC at |-> #\d|other info that|rcu: \s*\S*-|\(t=|\"echo 0 > |NMI backtrace|Sending NMI"
    r"|(?:pc|lr|sp|ra|gp|tp|[a-z]\d+)\s*:?\s+[0-9a-f]{16})"
)


class Block:
    """The block of a finding while it is being read."""

    def __init__(self, title: Title, line: int, before: list[str]) -> None:
        self.title = title
        self.line = line
        self.lines: list[str] = []
        self._characters = 0
        self._foreign = 0
        self._kept = 0
        self._has_trace = False
        for text in (*before, title.text):
            self.add(text)

    def add(self, text: str) -> None:
        """Add a line that belongs to the block, and with it the unrelated lines before it."""
        self._keep(text)
        self._foreign = 0
        self._kept = len(self.lines)

    def consider(self, text: str) -> bool:
        """Take a line that may belong to the block; False if the block has ended before it."""
        if not text:
            self._keep(text)
            return True
        is_frame = FRAME.match(text) is not None
        if is_frame or _OF_A_TRACE.match(text):
            self._has_trace |= is_frame
            self.add(text)
            return True
        self._keep(text)
        self._foreign += 1
        if not self._has_trace:
            return self._foreign <= _PATIENCE_BEFORE_TRACE
        return self._foreign <= (_PATIENCE_WITH_PROSE if self.title.kind in _WITH_PROSE else _PATIENCE)

    def continues_with(self, title: Title) -> bool:
        """Whether a line that could be a new title belongs to this block."""
        mine, other = self.title.kind, title.kind
        if title.is_consequence or (mine is FindingKind.ZFS_PANIC and other is FindingKind.PANIC):
            return True
        if mine is other and other in (FindingKind.OOPS, FindingKind.ZFS_PANIC):
            # "BUG: unable to handle ...", then "Oops: ..."; "VERIFY(...) failed", then "PANIC at ...".
            return not self._has_trace
        # The last line of other reports.
        return title.text.startswith("INFO: lockdep is turned off")

    def _keep(self, text: str) -> None:
        text = text[:_LONGEST_LINE]
        if len(self.lines) < _MAX_LINES and self._characters + len(text) <= _MAX_CHARACTERS:
            self.lines.append(text)
            self._characters += len(text) + 1

    def finding(self) -> Finding:
        """The finding of this block."""
        lines = self.lines[: self._kept]
        names = functions(self.title.kind, self.title.text, lines)
        return Finding(
            kind=self.title.kind,
            title=self.title.text,
            line=self.line,
            block=lines,
            functions=names,
            fingerprint=fingerprint(self.title.kind, self.title.text, names),
        )
