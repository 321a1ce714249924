"""Recognises the first line (title) of a kernel's finding, on every architecture, by its text."""

from __future__ import annotations

import re

import msgspec

from quizmatrix.model.finding import FindingKind

# Characters of a line that are matched: a guest may print very long lines.
_LONGEST = 500

# The prefix of a line: `[    1.234567]`, `[T123]`, `[    1.234567 T123]`, with or without a space after it.
_PREFIX = re.compile(r"(?:\s*\[ *(?:\d+\.\d+)? *(?:[TC]\d+)?\] ?)*")

# A file of the kernel's source, as WARN() and BUG() print it.
_FILE = r"\S+\.[chSs]:\d+"

# Matched only at a line's beginning, since the words occur in ordinary lines too. The first match counts.
_TITLES: tuple[tuple[FindingKind, str], ...] = (
    (FindingKind.PANIC, r"Kernel panic - not syncing\b.*"),
    (
        FindingKind.ZFS_PANIC,  # OpenZFS, include/os/linux/spl/sys/debug.h; SPLError: before 0.7
        r"(?:VERIFY|ASSERT)\w*\(.*\) failed.*|PANIC at .*|PANIC: (?!double fault|early exception).*"
        r"|SPL PANIC.*|SPLError: .*(?:SPL PANIC|VERIFY|ASSERT).*",
    ),
    (
        FindingKind.OOPS,
        r"(?:Internal error: )?Oops\b.*"
        r"|BUG: (?:[Uu]nable to handle|[Kk]ernel NULL|\w+ stack guard page was hit).*"
        r"|(?:CPU \d+ )?Unable to handle kernel .*"
        r"|[Kk]ernel (?:BUG at|bug detected).*"
        r"|(?:traps: )?PANIC: .*"
        r"|general protection fault\b.*"
        # The line of a die(): `divide error: 0000 [#1] PREEMPT SMP`, `monitor event: 0040 ilc:2 [#1]`.
        r"|[A-Za-z][^\[\]]{2,150}\[#\d+\]:?(?:\s+[A-Z_]+)*\s*$",
    ),
    (FindingKind.KASAN, r"BUG: KASAN: .*"),
    (FindingKind.KMSAN, r"BUG: KMSAN: .*"),
    (FindingKind.KCSAN, r"BUG: KCSAN: .*"),
    (FindingKind.KFENCE, r"BUG: KFENCE: .*"),
    (FindingKind.UBSAN, r"UBSAN: .*"),
    (FindingKind.SOFT_LOCKUP, r"(?:(?:NMI )?watchdog: )?BUG: soft lockup.*"),
    (
        FindingKind.HARD_LOCKUP,
        r"(?:NMI )?watchdog: (?:Watchdog detected|CPU ?\d+ (?:(?:self-)?detected )?)\s*[Hh]ard LOCKUP.*"
        r"|Watchdog detected hard LOCKUP.*",
    ),
    (FindingKind.RCU_STALL, r"(?:rcu: )?INFO: rcu\w* .*(?:stall|detected).*|INFO: rcu .*"),
    (FindingKind.HUNG_TASK, r"INFO: task .* blocked .*\bmore than .*"),
    (
        FindingKind.LOCKDEP,  # drivers write "WARNING:" too
        r"(?:\[ )?WARNING: (?:possible |inconsistent lock|bad unlock|bad contention|held lock|lock held"
        r"|suspicious RCU|Nested lock|\w+-safe -> |.* still has locks held).*"
        r"|(?:\[ )?BUG: (?:Invalid wait context|bad unlock|held lock|lock held|MAX_LOCK|key \S+ )\b.*"
        r"|(?:\[ )?INFO: (?:possible|lockdep|inconsistent|trying to register non-static key)\b.*",
    ),
    (FindingKind.WARNING, rf"WARNING: (?:CPU: \d|{_FILE} at |at {_FILE}).*"),
    (FindingKind.BUG, r"BUG: .*|BUG \S+ \((?:Not t|T)ainted.*"),
)
# Compiled by its first use, since that takes longer than it takes to import most modules.
_ANY = "|".join(f"(?P<k{number}>{text})" for number, (_, text) in enumerate(_TITLES))
_KINDS = {f"k{number}": kind for number, (kind, _) in enumerate(_TITLES)}

# Panics that are only the consequence of an earlier finding.
_CONSEQUENCE = (
    r"Kernel panic - not syncing: (?:\S+ )?(?:panic_on_\w+ set|Fatal exception|Oops|Unrecovered exception"
    r"|hung_task: blocked|softlockup: hung|\w+: hung tasks|Hard LOCKUP|RCU Stall).*"
)
_PANIC_WORDS = re.compile(r"Kernel panic - not syncing:? *")


class Title(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a finding. is_consequence: a panic that only follows from another finding."""

    kind: FindingKind
    text: str
    is_consequence: bool

    @property
    def reason(self) -> str:
        """The text without `Kernel panic - not syncing`."""
        return _PANIC_WORDS.sub("", self.text)


def without_time(line: str) -> str:
    """A console line without the time stamp and the caller that the kernel puts before it."""
    match = _PREFIX.match(line)
    return line[match.end() :] if match else line


def title_of(text: str) -> Title | None:
    """The title in a line without its time stamp; None if the line is no title."""
    text = text[:_LONGEST]
    match = re.match(_ANY, text)
    if match is None or match.lastgroup is None:
        return None
    is_consequence = re.match(_CONSEQUENCE, text) is not None
    return Title(kind=_KINDS[match.lastgroup], text=text, is_consequence=is_consequence)
