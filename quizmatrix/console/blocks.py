"""Splits a console into blocks, one for each finding."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from quizmatrix.console.titles import Title, title_of
from quizmatrix.model.finding import Finding, FindingKind

if TYPE_CHECKING:
    from quizmatrix.console.trace import Block

# Reports that begin and end with a line of `=`.
_WITH_RULES = frozenset(
    {FindingKind.KASAN, FindingKind.KMSAN, FindingKind.KCSAN, FindingKind.KFENCE, FindingKind.UBSAN}
)

_CUT_HERE = re.compile(r"-{4,}\[ cut here \]-{4,}|8<--- cut here ---")
_END = re.compile(r"---\[ end ")
_DOUBLE_RULE = re.compile(r"={20,}$")
# The largest number of lines between `cut here` and the title: the message of a WARN().
_MAX_BEFORE_TITLE = 6


class BlockReader:
    """Splits a console into the blocks of its findings; only one block is in memory at a time."""

    def __init__(self, found: Callable[[Finding], None]) -> None:
        """found: called with each finding when its block has ended."""
        self._found = found
        self._open: Block | None = None
        self._has_found = False
        self._before: list[str] | None = None

    def feed(self, number: int, text: str, *, is_read: bool = True) -> Title | None:
        """Take the next line, without its time stamp; return its title if it begins a new finding.

        is_read: whether to read the block of a new finding.
        """
        title = title_of(text)
        if title is not None:
            return self._take_title(number, title, is_read=is_read)
        if _CUT_HERE.match(text):
            self.close()
            self._before = [text]
        elif self._open is not None:
            self._take(self._open, text)
        elif self._before is not None:
            self._before = [*self._before, text] if len(self._before) < _MAX_BEFORE_TITLE else None
        return None

    def close(self) -> None:
        """End the block that is being read."""
        block, self._open = self._open, None
        if block is not None:
            self._found(block.finding())

    def _take_title(self, number: int, title: Title, *, is_read: bool) -> Title | None:
        if self._open is not None and self._open.continues_with(title):
            self._open.add(title.text)
            if title.kind is FindingKind.PANIC:
                self.close()
                return title
            return None
        self.close()
        if is_read and not (title.is_consequence and self._has_found):
            # Imported only here: most consoles have no finding, and its regexes take long to compile.
            from quizmatrix.console.trace import Block

            self._open = Block(title, number, self._before or [])
            self._has_found = True
        self._before = None
        return title

    def _take(self, block: Block, text: str) -> None:
        if _END.match(text):
            block.add(text)
            self.close()
        elif _DOUBLE_RULE.match(text):
            if block.title.kind in _WITH_RULES:
                block.add(text)
            self.close()
        elif not block.consider(text):
            self.close()
