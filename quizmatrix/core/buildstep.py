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

# A line of a compiler, of configure, or of make(1); not make's last words, which only say that there was one.
_FIRST_ERROR = re.compile(
    r"^.*(?:\berror: (?!in `)|\bERROR:|\bfatal error\b|undefined reference|\*\*\* (?!\[)).*$", re.MULTILINE
)


class BuildStep(msgspec.Struct, frozen=True, kw_only=True):
    """How a step of a build is run, and what a person is told where it fails.

    fact: what has failed then. folder: the current folder. log: the file to whose end the command line and
    the output are added; without one, what the program says last is the error. env: added to the small
    environment of all helpers. pool: the CPUs for make(1); the step holds a token of it. heard: is given the
    output as it comes, where there is a log. advice: what to do next, by a text that the output has then;
    next_step: what else to do, where that is not to read the log.
    """

    fact: str
    folder: Path | None = None
    log: Path | None = None
    env: Mapping[str, str] = {}
    pool: JobServer | None = None
    heard: Callable[[bytes], None] = lambda _data: None
    advice: Mapping[str, str] = {}
    next_step: str = ""

    async def run(self, argv: Sequence[str]) -> None:
        """Run a program to its end.

        Raises UnpreparedError where it fails, or HostError where that is because the disk is full; OSError
        where the log cannot be written.
        """
        async with self.pool.token() if self.pool else nullcontext():
            if self.log is None:
                done = await self._run(argv)
                output, cause = (done.output + done.errors).decode(errors="replace"), done.last_words
            else:
                done, output = await self._run_logged(argv, self.log)
                error = _FIRST_ERROR.search(output)
                cause = error.group().strip() if error else output.strip()[-300:]
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
        # However long it takes: a compiler that works is not told from one that hangs.
        return await process.run(
            argv,
            cwd=self.folder,
            env={**self.env, **(self.pool.environment if self.pool else {})},
            pass_fds=self.pool.descriptors if self.pool else (),
            on_output=on_output,
            limit=None,
        )

    async def _run_logged(self, argv: Sequence[str], log: Path) -> tuple[process.Completed, str]:
        """Run a program; its output too, where it failed."""
        with log.open("ab") as file:
            file.write(f"$ {process.printable(argv)}\n".encode())
            file.flush()
            start = file.tell()
            trouble: OSError | None = None

            def on_output(data: bytes) -> None:
                nonlocal trouble
                try:
                    file.write(data)
                    file.flush()
                except OSError as error:
                    trouble = trouble or error
                self.heard(data)

            done = await self._run(argv, on_output)
            if trouble is not None:
                raise trouble
        if done.status == 0:
            return done, ""
        with log.open("rb") as written:
            written.seek(start)
            return done, written.read().decode(errors="replace")
