"""What a worker tells of a job while it runs, passed on to the run's observer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.hosts.messages import Told
from quizmatrix.run.observer import Observer

# How many messages wait for a slow reader; then some are dropped.
_MOST_WAITING = 1000
_CHUNK = 1 << 20


class Heard:
    """What is told of one attempt. Output that is not told comes with the results."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._send, self._receive = anyio.create_memory_object_stream[Told](_MOST_WAITING)
        self._shown = {"stdout": 0, "stderr": 0}

    def put(self, told: Told) -> None:
        """Take a message."""
        with suppress(anyio.WouldBlock):
            self._send.send_nowait(told)

    def close(self) -> None:
        """No more comes: `pass_on` then ends."""
        self._send.close()

    async def pass_on(self) -> None:
        """Pass on what comes."""
        observer = self._observer
        async with self._receive:
            async for told in self._receive:
                if told.specified is not None:
                    # Where the host before was lost, another one begins anew.
                    self._shown = dict.fromkeys(self._shown, 0)
                    await observer.specified(told.specified, told.why)
                elif told.host is not None:
                    observer.placed(told.host)
                elif told.stage is not None:
                    observer.stage(told.stage)
                elif told.note is not None:
                    observer.note(told.note)
                elif told.console is not None:
                    observer.console(told.console)
                else:
                    await self._show(told)

    async def _show(self, told: Told) -> None:
        for name, data, show in (
            ("stdout", told.stdout, self._observer.stdout),
            ("stderr", told.stderr, self._observer.stderr),
        ):
            # After a piece that was dropped, the rest waits for the results.
            if data is not None and show is not None and told.at == self._shown[name]:
                self._shown[name] += len(data)
                await show(data)

    async def pass_on_rest(self, folder: Path) -> None:
        """Pass on what was not told of the output. folder: the cell's, which has all of it."""
        shows: dict[str, Callable[[bytes], Awaitable[None]] | None] = {
            "stdout": self._observer.stdout,
            "stderr": self._observer.stderr,
        }
        for name, show in shows.items():
            if show is None:
                continue
            with suppress(FileNotFoundError), (folder / name).open("rb") as file:
                file.seek(self._shown[name])
                for data in iter(partial(file.read, _CHUNK), b""):
                    await show(data)
