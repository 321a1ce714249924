"""Finds the lines of a stream that may be test results, quickly: all others are skipped by a regex."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from quizmatrix.subtests import fstests, ltp
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
# The same with the lines of suites that are rare, and cost time to look for; and what such output contains.
_OWN_AND_RARE = b"|".join((_OWN, ltp.LINES, fstests.LINES))
_RARE_SIGNS = (*ltp.SIGNS, *fstests.SIGNS)


def _output_pattern(own: bytes, others: bytes = b"") -> re.Pattern[bytes]:
    return re.compile(rb"\n(?:(?P<own>[ \t]*(?:" + own + rb")[^\n]*)" + others + rb")")


# By whether the output has such suites, and whether it has results of a kernel.
_OUTPUT_PATTERNS = {
    (rare, kernels): _output_pattern(
        _OWN_AND_RARE if rare else _OWN, rb"|" + STAMP + TEXT if kernels else b""
    )
    for rare in (False, True)
    for kernels in (False, True)
}


def console_lines(file: BinaryIO) -> Iterator[tuple[re.Match[bytes], bool]]:
    """The lines of a console that may be results, `text` and `stamp`, and whether each has ended."""
    return _found_in(file, _console_pattern)


def output_lines(file: BinaryIO) -> Iterator[tuple[re.Match[bytes], bool]]:
    """The same of a command's output: either `own`, or `text` and `stamp` of a kernel's line in it."""
    return _found_in(file, _OutputPattern())


def _has_kernels(data: bytes) -> bool:
    """Whether a part of a stream may have results of a kernel."""
    return any(word in data for word in RESULT_WORDS)


def _console_pattern(data: bytes) -> re.Pattern[bytes] | None:
    return CONSOLE_LINE if _has_kernels(data) else None


class _OutputPattern:
    """Chooses the regex for the next part of a command's output."""

    def __init__(self) -> None:
        self._has_rare = False

    def __call__(self, data: bytes) -> re.Pattern[bytes]:
        self._has_rare = self._has_rare or any(sign in data for sign in _RARE_SIGNS)
        return _OUTPUT_PATTERNS[self._has_rare, _has_kernels(data)]


def _found_in(
    file: BinaryIO, choose: Callable[[bytes], re.Pattern[bytes] | None]
) -> Iterator[tuple[re.Match[bytes], bool]]:
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
