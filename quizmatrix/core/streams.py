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

# How a write to a pipe that nobody reads fails, and one to a terminal that was closed.
_GONE = (errno.EPIPE, errno.EIO)


class Stream(io.TextIOWrapper):
    """stdout or stderr. ReaderGoneError where nobody is there any more."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        """Takes the place of `stream`, which is of no use afterwards."""
        # A name that is no text goes out as the bytes that it is, and never ends the program.
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
        """Write it, cleaned where this is a terminal."""
        with _noticing_a_gone_reader():
            super().write(clean_block(text) if self.is_terminal else text)
        return len(text)

    def draw(self, text: str) -> None:
        """Write it as it is: what moves the cursor is ours, and what it shows has been cleaned."""
        with _noticing_a_gone_reader():
            super().write(text)

    def flush(self) -> None:
        """Write what waits in the buffer."""
        with _noticing_a_gone_reader():
            super().flush()


class Canvas:  # not a TextIOBase, whose `encoding` cannot be set
    """A terminal as one that draws on it sees it; any other stream is passed through."""

    def __init__(self, stream: TextIO) -> None:
        """`stream`: what is drawn on."""
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        """Write it as it is."""
        if isinstance(self._stream, Stream):
            self._stream.draw(text)
        else:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits in the buffer."""
        self._stream.flush()

    def isatty(self) -> bool:
        """As the stream's."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As the stream's."""
        return self._stream.fileno()


@contextlib.contextmanager
def _noticing_a_gone_reader() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        raise ReaderGoneError from error


def take_over() -> None:
    """Have all that this process prints go through Streams."""
    sys.stdout = Stream(cast(io.TextIOWrapper, sys.stdout))
    sys.stderr = Stream(cast(io.TextIOWrapper, sys.stderr))


def copy(parts: Iterable[bytes]) -> None:
    """Write bytes to stdout: as they are, or to a terminal as clean text."""
    if sys.stdout.isatty():
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for part in parts:
            sys.stdout.write(clean_block(decoder.decode(part)))
        sys.stdout.flush()
        return
    with _noticing_a_gone_reader():
        sys.stdout.flush()
        sys.stdout.buffer.writelines(parts)
        sys.stdout.buffer.flush()
