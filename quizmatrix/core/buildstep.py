"""One step of a build: a program whose output goes to a log, and whose first error a person is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.errors import HostError, UnpreparedError

# A line of a compiler, of configure, or of make(1); not make's last words, which only say that there was one.
_FIRST_ERROR = re.compile(
    r"^.*(?:\berror: (?!in `)|\bERROR:|\bfatal error\b|undefined reference|\*\*\* (?!\[)).*$", re.MULTILINE
)


async def run(
    argv: Sequence[str],
    log: Path,
    *,
    fact: str,
    cwd: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    heard: Callable[[bytes], None] = lambda _data: None,
    advice: Mapping[str, str] | None = None,
) -> None:
    """Run a program, its command line and output at the end of `log`.

    heard: is given the output as it comes. Where it fails, UnpreparedError says `fact`, the first error in
    the output, and where the log is, or of `advice` what belongs to a text that is in the output; HostError
    where the disk is full; OSError where the log cannot be written.
    """
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
            heard(data)

        # However long it takes: a compiler that works is not told from one that hangs.
        done = await process.run(argv, cwd=cwd, env=env, pass_fds=pass_fds, on_output=on_output, limit=None)
        if trouble is not None:
            raise trouble
    if done.status == 0:
        return
    with log.open("rb") as written:
        written.seek(start)
        said = written.read().decode(errors="replace")
    error = _FIRST_ERROR.search(said)
    known = next((step for text, step in (advice or {}).items() if text in said), "")
    raise (HostError if "No space left" in said else UnpreparedError)(
        fact,
        cause=error.group().strip() if error else said.strip()[-300:],
        next_step=known or f"The whole log: {log}",
    )
