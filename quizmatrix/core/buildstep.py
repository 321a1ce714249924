"""BuildStep: runs one program of a build, appends its output to a log, and reports its first error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import FREE_SPACE, HostError, UnpreparedError
from quizmatrix.core.jobserver import JobServer

# An error line of a compiler, configure or make(1). make's final lines are left out: they only repeat that
# there was an error.
_FIRST_ERROR = re.compile(
    r"^.*(?:\berror: (?!in `)|\bERROR:|\bfatal error\b|undefined reference|\*\*\* (?!\[|Waiting for)).*$",
    re.MULTILINE,
)


# Bytes that one program may add to a log: a verbose build of a whole kernel has 100 MB.
_LOG_AT_MOST = 512 << 20


def first_error(output: str) -> str:
    """The first line of a build's output that says what went wrong; "" where none does."""
    found = _FIRST_ERROR.search(output)
    return found.group().strip() if found else ""


class BuildStep(msgspec.Struct, frozen=True, kw_only=True):
    """How one step of a build runs, and what its error says.

    fact: what the error says has failed.
    folder: the working directory.
    log: file that the command line and the output are appended to. Without it, the error quotes the last
    lines of the output.
    env: variables added to the small environment that every helper program gets.
    pool: the CPUs for make(1); the step holds one token while it runs.
    on_output: called with each piece of output, if there is a log.
    advice: next steps, keyed by a text that the output of the failed program contains.
    next_step: the next step if no key of `advice` occurs; default: read the log.
    shown: the command line for the log; by default all its words.
    """

    fact: str
    folder: Path | None = None
    log: Path | None = None
    env: Mapping[str, str] = {}
    pool: JobServer | None = None
    on_output: Callable[[bytes], None] = lambda _data: None
    advice: Mapping[str, str] = {}
    next_step: str = ""
    shown: str = ""

    async def run(self, argv: Sequence[str]) -> None:
        """Run a program until it ends.

        Raises UnpreparedError if it fails, HostError if it fails because the disk is full, and OSError if
        the log cannot be written.
        """
        async with self.pool.token() if self.pool else nullcontext():
            if self.log is None:
                done = await self._run(argv)
                output, cause = (done.output + done.errors).decode(errors="replace"), done.last_words
            else:
                done, output = await self._run_logged(argv, self.log)
                cause = first_error(output) or output.strip()[-300:]
        if done.status == 0:
            return
        is_full = "No space left" in output
        otherwise = self.next_step or (f"The whole log: {self.log}" if self.log else "")
        advice = FREE_SPACE if is_full else otherwise
        raise (HostError if is_full else UnpreparedError)(
            self.fact,
            cause=cause,
            next_step=next((step for text, step in self.advice.items() if text in output), advice),
        )

    async def _run(
        self, argv: Sequence[str], on_output: Callable[[bytes], None] | None = None
    ) -> process.Completed:
        # No time limit: a slow compiler cannot be told from a compiler that hangs.
        return await process.run(
            argv,
            cwd=self.folder,
            env={**self.env, **(self.pool.environment if self.pool else {})},
            pass_fds=self.pool.descriptors if self.pool else (),
            on_output=on_output,
            limit=None,
        )

    async def _run_logged(self, argv: Sequence[str], log: Path) -> tuple[process.Completed, str]:
        """Run a program; return its output too if it failed."""
        with log.open("ab") as file:
            file.write(f"$ {self.shown or process.printable(argv)}\n".encode(errors="surrogateescape"))
            file.flush()
            start = file.tell()
            failure: OSError | None = None
            room = _LOG_AT_MOST

            def log_output(data: bytes) -> None:
                nonlocal failure, room
                try:
                    file.write(data[:room])
                    room -= min(room, len(data))
                    file.flush()
                except OSError as error:
                    failure = failure or error
                self.on_output(data)

            done = await self._run(argv, log_output)
            if failure is not None:
                raise failure
        if done.status == 0:
            return done, ""
        with log.open("rb") as written:
            written.seek(start)
            return done, written.read().decode(errors="replace")
