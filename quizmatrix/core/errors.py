"""All exceptions that quizmatrix raises for users, as one tree.

    QuizmatrixError            every error for a user; exit status 125 ("no verdict")
    +-- UsageError             the command line asks for something that does not exist
    +-- DataError              a TOML file has invalid content (matrix, arch, mirror list)
    +-- UnpreparedError        a kernel, an image or a layer is not available
    |   +-- NotFetchedError    the archive or the network did not deliver it
    |   +-- DamagedError       it exists, but its content is wrong
    +-- HistoryError           the record of earlier runs cannot be read or written
    +-- HostError              this host lacks something: a program, a writable folder, space

    ReaderGoneError            nobody reads our output any more (`| head`); exit status 141

Each error states the fact, the cause and the next step. Only `quizmatrix.cli` turns errors into exit
statuses.
"""

from __future__ import annotations

import errno
import os


class QuizmatrixError(Exception):
    """An error for a user. fact: what failed. cause: why, if known. next_step: what to type or change."""

    def __init__(self, fact: str, *, cause: str = "", next_step: str = "") -> None:
        super().__init__(fact)
        self.fact = fact
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        return ": ".join(part for part in (self.fact, self.cause) if part)

    @property
    def in_full(self) -> str:
        """All of it on one line, as the explanation of an outcome."""
        return f"{self}. {self.next_step}" if self.next_step else str(self)

    def render(self) -> str:
        """The lines to print on stderr, without a trailing newline."""
        lines = [str(self)]
        if self.next_step:
            lines.append(f"  {self.next_step}")
        return "\n".join(lines)


class UsageError(QuizmatrixError):
    """The command line asks for something that does not exist."""


class DataError(QuizmatrixError):
    """A TOML file has invalid content."""


class UnpreparedError(QuizmatrixError):
    """A kernel, an image or a layer is not available."""


class NotFetchedError(UnpreparedError):
    """The archive or the network did not deliver a file."""


class NotInArchiveError(NotFetchedError):
    """The archive's index names a file that the archive does not have."""


class DamagedError(UnpreparedError):
    """A file exists, but its content is wrong."""


class HistoryError(QuizmatrixError):
    """The record of earlier runs cannot be read or written. The outcome of the present run is unaffected."""


class ReaderGoneError(BaseException):
    """Nobody reads our output any more, so the program exits; the work itself has not failed.

    Not an OSError: it would be mistaken for an error of a file that is being written at the same time.
    """


class HostError(QuizmatrixError):
    """This host lacks something: a program, a writable folder, space."""


# The next step if the disk is full.
FREE_SPACE = "Free some space (`quizmatrix clean` empties the cache), then run it again."

# The environment variables that name the folders we write to.
FOLDERS = "QUIZMATRIX_CACHE_DIR, QUIZMATRIX_STATE_DIR and QUIZMATRIX_CONFIG_DIR"


def host_error(action: str, error: OSError) -> HostError:
    """The HostError for an OSError. action: what was being done, such as "write the cache"."""
    in_the_way = f"A file is in the place of a folder: {FOLDERS} must name folders."
    where = f" {os.fspath(error.filename)}" if isinstance(error.filename, str) else ""
    next_step = {
        errno.ENOSPC: FREE_SPACE,
        errno.EDQUOT: "The disk quota is used up; free some space, then run it again.",
        errno.EROFS: "That file system is read-only; name writable folders with "
        "QUIZMATRIX_CACHE_DIR and QUIZMATRIX_STATE_DIR.",
        errno.EACCES: f"Make it accessible, or name other folders with {FOLDERS}.",
        errno.ENOTDIR: in_the_way,
        errno.EEXIST: in_the_way,
    }.get(error.errno or 0, "")
    cause = (error.strerror or str(error)) + (f":{where}" if where else "")
    return HostError(f"cannot {action}", cause=cause, next_step=next_step)
