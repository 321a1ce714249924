"""Finds the lines of a stream that may be test results, quickly: all others are skipped by a regex."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import BinaryIO

from quizmatrix.subtests.kernellog import CONSOLE_LINE, RESULT_WORDS, STAMP, TEXT

# Bytes read at a time.
_CHUNK = 1 << 18
# Of a longer line only this many bytes are read.
_LONGEST_LINE = 4096
# How the lines of a command's own output begin that may be results, after blanks. A stream may be a gigabyte
# long, so all other lines are skipped by the regex.
_OWN = (
    rb"not ok|ok|\d+\.\.\d|K?TAP version|Bail out!|# Subtest|# selftests: |Tests? |Test:"
    rb"|(?:#[ \t]+){1,16}(?:(?:not )?ok \d|1\.\.\d|K?TAP version)"
    rb"|\[[-\d:.T]{1,32}\] Test|Results Summary|Running Time:|No test results|(?:PASS|FAIL|SKIP|KILLED)[ \t]"
)
# What the output of a suite contains whose reader is imported only then (`rare`): LTP, xfstests, blktests.
_RARE_SIGNS = (
    *(b"TPASS", b"TFAIL", b"TBROK", b"TCONF", b"<<<test_", b"test_fqn", b"\nSuite: "),
    *(b"FSTYP  ", b"[passed]", b"[failed]", b"[not run]"),
)

# A line that may be a result, and whether it has ended.
_Line = tuple[re.Match[bytes], bool]


def console_lines(file: BinaryIO) -> Iterator[_Line]:
    """The lines of a console that may be results, `text` and `stamp`, and whether each has ended."""
    return _found_in(file, lambda data: CONSOLE_LINE if _has_kernels(data) else None)


class OutputLines:
    """The same of a command's output: either `own`, or `text` and `stamp` of a kernel's line in it.

    has_rare: whether it has signs of a suite of `rare`.
    """

    def __init__(self, file: BinaryIO) -> None:
        """file: the output."""
        self.has_rare = False
        self._lines = _found_in(file, self._pattern)

    def __iter__(self) -> Iterator[_Line]:
        """The lines, once."""
        return self._lines

    def _pattern(self, data: bytes) -> re.Pattern[bytes]:
        self.has_rare = self.has_rare or any(sign in data for sign in _RARE_SIGNS)
        return _output_pattern(has_rare=self.has_rare, has_kernels=_has_kernels(data))


def _has_kernels(data: bytes) -> bool:
    """Whether a part of a stream may have results of a kernel."""
    return any(word in data for word in RESULT_WORDS)


@cache
def _output_pattern(*, has_rare: bool, has_kernels: bool) -> re.Pattern[bytes]:
    own = _OWN
    if has_rare:
        from quizmatrix.subtests import rare

        own += b"|" + rare.LINES
    return re.compile(
        rb"\n(?:(?P<own>[ \t]*(?:"
        + own
        + rb")[^\n]*)"
        + (rb"|" + STAMP + TEXT if has_kernels else b"")
        + rb")"
    )


def _found_in(file: BinaryIO, choose: Callable[[bytes], re.Pattern[bytes] | None]) -> Iterator[_Line]:
    """The lines that may be results, and whether each has ended.

    choose: gives the regex for a part of the stream, which begins with a line feed; None if it has none.
    """

    def found(data: bytes) -> Iterator[re.Match[bytes]]:
        pattern = choose(data)
        return pattern.finditer(data) if pattern is not None else iter(())

    rest = b"\n"
    while chunk := file.read(_CHUNK):
        data = rest + chunk
        end = data.rfind(b"\n")
        for match in found(data[:end]):
            yield match, data[match.end() : match.end() + 1] == b"\n"
        # A longer line is cut here, so its end is appended beyond the bytes that are read.
        rest = data[end : end + _LONGEST_LINE]
    for match in found(rest):
        yield match, False


def text_of(line: bytes) -> str:
    """A line as text, without blanks at its end; a long one is cut off."""
    return line[: _LONGEST_LINE - 1].decode(errors="replace").rstrip()
