"""Safe stdout and stderr: escape sequences from outside never reach a terminal, and a reader may close.

Text from a guest, a file name, a matrix or a package may contain escape sequences, which can change a
window's title, overwrite what is shown, or type as the user. Everything that we print goes through these
streams. On a terminal all escape sequences but colours are removed; a file or pipe gets the text unchanged.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, cast

from quizmatrix.core.errors import ReaderGoneError
from quizmatrix.core.text import clean_block

# Errors of a write to a pipe without a reader, and to a closed terminal.
_READER_GONE = (errno.EPIPE, errno.EIO)


class Stream(io.TextIOWrapper):
    """stdout or stderr. Writing raises ReaderGoneError if nobody reads it any more."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        """Replaces `stream`, which is detached and unusable afterwards."""
        # Names that are not valid text are written as their original bytes and never raise an error.
        errors = "surrogateescape" if stream.errors == "strict" else stream.errors
        encoding, by_lines, at_once = stream.encoding, stream.line_buffering, stream.write_through
        super().__init__(
            stream.detach(),
            encoding=encoding,
            errors=errors,
            line_buffering=by_lines,
            write_through=at_once,
        )
        self.is_terminal = self.isatty()

    def write(self, text: str) -> int:
        """Write text; escape sequences are removed if this is a terminal."""
        with _raising_reader_gone():
            super().write(clean_block(text) if self.is_terminal else text)
        return len(text)

    def draw(self, text: str) -> None:
        """Write text unchanged: the caller has cleaned its content, and moves the cursor on purpose."""
        with _raising_reader_gone():
            super().write(text)

    def flush(self) -> None:
        """Write what waits in the buffer."""
        with _raising_reader_gone():
            super().flush()


class Canvas:  # not a TextIOBase, whose `encoding` cannot be set
    """A file-like object for a program that draws on a terminal: its escape sequences are kept."""

    def __init__(self, stream: TextIO) -> None:
        """stream: the terminal, or any other stream."""
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write text unchanged."""
        if isinstance(self._stream, Stream):
            self._stream.draw(text)
        else:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits in the buffer."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's descriptor."""
        return self._stream.fileno()


@contextlib.contextmanager
def _raising_reader_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _READER_GONE:
            raise
        raise ReaderGoneError from error


def install() -> None:
    """Replace sys.stdout and sys.stderr by Streams."""
    sys.stdout = Stream(cast(io.TextIOWrapper, sys.stdout))
    sys.stderr = Stream(cast(io.TextIOWrapper, sys.stderr))


def copy(parts: Iterable[bytes]) -> None:
    """Write bytes to stdout: unchanged, or as cleaned text if it is a terminal."""
    if sys.stdout.isatty():
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for part in parts:
            sys.stdout.write(clean_block(decoder.decode(part)))
        sys.stdout.flush()
        return
    with _raising_reader_gone():
        sys.stdout.flush()
        sys.stdout.buffer.writelines(parts)
        sys.stdout.buffer.flush()
