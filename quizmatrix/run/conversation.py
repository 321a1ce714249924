"""Talks to one guest over its control port, until its command has ended."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio

from quizmatrix.core.concurrency import task_group
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.stage import Stage
from quizmatrix.run import qemu
from quizmatrix.run.channel import Control, InvalidMessageError, Message, Port
from quizmatrix.run.ends import CONTROL, QMP
from quizmatrix.run.observer import Observer, TerminalHost
from quizmatrix.run.qmp import QmpError
from quizmatrix.run.start import Start
from quizmatrix.run.stdin import Feed
from quizmatrix.run.stopwatch import Stopwatch
from quizmatrix.run.verdict import Evidence, Expiry

# Seconds for a guest to answer once it was restored. That takes a tenth of a second; a busy host needs more.
_ANSWER_LIMIT = 20.0

# Seconds for the agent to say what the guest is doing whose time is up; it reads the stacks of all threads.
_EXPLAIN_LIMIT = 10.0
# Seconds for the agent to pack the counters of lines, after the command: those of a whole kernel, emulated.
_PACKING_LIMIT = 300.0
# The largest number of threads that it may name; guest/programs/agent.c names fewer.
_MAX_THREADS = 1000
# Characters of what it says of one: a stack has 64 functions.
_LONGEST_THREAD = 8192

# The largest number of steps that a guest may announce before its command.
_MAX_STEPS = 1000


class Conversation:
    """The messages to and from one guest. stopwatch: the times of its stages."""

    def __init__(
        self,
        spec: CellSpec,
        ports: dict[str, Port],
        feed: Feed,
        observer: Observer,
        evidence: Evidence,
        start: Start,
    ) -> None:
        """Sends nothing. evidence: gets what the guest says."""
        # Why a restored guest did not answer; empty if it did, and for all others.
        self.no_answer = ""
        # What the guest said of its threads when the command's time was up (see hang.py).
        self.threads: list[str] = []
        self.has_answered = False
        self._start = start
        self.stopwatch = Stopwatch()
        self._limits = spec.limits
        self._folder = Path(spec.files.folder)
        self._packs = spec.keeps.counters
        self._ports = ports
        self._control = Control(ports[CONTROL])
        self._feed = feed
        self._observer = observer
        self._evidence = evidence
        # The time limit of the command that runs; and how it ended, once its guest packs counters.
        self._of_command: anyio.CancelScope | None = None
        self._packing: Message | None = None

    @property
    def had_head_start(self) -> bool:
        """Whether its QEMU was started on a guess."""
        return self._start.ahead is not None

    def reach(self, stage: Stage) -> None:
        """Record that a stage begins now, and tell the observer."""
        self.stopwatch.reach(stage)
        self._evidence.stage = stage
        self._observer.stage(stage)

    async def run(self, save: Callable[[], Awaitable[None]]) -> None:
        """Talk to the guest until the command ends, a time limit expires, or the guest is gone.

        The terminal session after the command is part of that. save: is called for a guest that has booted.
        """
        try:
            await self._run_command(save)
        except InvalidMessageError as error:
            self._evidence.invalid_message = str(error)
        if self._evidence.ended is None or self._observer.terminal is None:
            return
        try:
            await self._serve_terminal(self._observer.terminal)
        except InvalidMessageError as error:
            self._evidence.notes.append(f"the guest sent an invalid message: {error}")

    async def _run_command(self, save: Callable[[], Awaitable[None]]) -> None:
        if self._start.template is not None and not await self._is_restored():
            return
        with anyio.move_on_after(self._limits.boot_timeout) as limit:
            if self._start.template is None and not await self._has_booted(save, limit):
                return
            self.reach(Stage.JOINING)
            if not await self._expect("started"):
                if self._start.joined_ahead:
                    # By files that were only guessed, and before the run itself has looked at them.
                    self.no_answer = self._evidence.init_failed or "QEMU ended"
                return
        if limit.cancelled_caught:
            self._evidence.expired = Expiry(limit=self._limits.boot_timeout)
            return
        self.reach(Stage.RUNNING)
        self._feed.begin()
        with anyio.move_on_after(self._limits.timeout) as limit:
            self._of_command = limit
            self._evidence.ended = await self._expect("exited")
        self._feed.stop()
        if limit.cancelled_caught and self._packing is not None:
            self._evidence.ended = self._packing
            self._evidence.notes.append(f"its counters were not packed within {_PACKING_LIMIT:g} s")
        elif limit.cancelled_caught:
            self._evidence.expired = Expiry(limit=self._limits.timeout)
            # What it says then does not change the verdict.
            with anyio.move_on_after(_EXPLAIN_LIMIT), suppress(InvalidMessageError):
                await self._ask_what_it_does()

    async def _ask_what_it_does(self) -> None:
        """Ask the agent what the guest's threads are doing. Raises InvalidMessageError."""
        await self._control.send(b'{"op":"explain"}\n')
        for _ in range(_MAX_THREADS):
            message = await self._control.receive()
            self.has_answered |= message is not None
            if message is None or message.event in ("explained", "exited"):
                return
            if message.event == "task":
                self.threads.append(message.message[:_LONGEST_THREAD])

    async def _has_booted(self, save: Callable[[], Awaitable[None]], limit: anyio.CancelScope) -> bool:
        """Whether the guest has booted, and was told to start. limit: does not count the time for saving."""
        if not await self._expect("booted"):
            return False
        left = limit.deadline - anyio.current_time()
        limit.deadline = math.inf
        await save()
        limit.deadline = anyio.current_time() + left
        renews = self._start.renews
        await self._control.send(self._start.message())
        return not renews or await self._expect("renewed") is not None

    async def _is_restored(self) -> bool:
        """Whether the guest was restored, was told to start, and answered. If not, `no_answer` says why."""
        # That holds where the talk is ended, too, as where its kernel panics.
        self.no_answer = "it ended"
        with anyio.move_on_after(_ANSWER_LIMIT) as limit:
            try:
                await self._start.restore(self._ports[QMP], self._ports[CONTROL])
                await self._control.send(self._start.message())
                if await self._expect("renewed"):
                    self.no_answer = ""
                    return True
                self.no_answer = self._evidence.init_failed or "QEMU ended"
            except (QmpError, OSError, InvalidMessageError) as error:
                self.no_answer = str(error)
        if limit.cancelled_caught:
            self.no_answer = f"no answer within {_ANSWER_LIMIT:g} s"
        return False

    async def _serve_terminal(self, terminal: TerminalHost) -> None:
        """Run the person's session after the command; ends with the session or the guest."""
        async with task_group() as group:

            async def listen() -> None:
                if await self._control.receive() is None:
                    group.cancel_scope.cancel()

            group.start_soon(listen)
            await terminal.serve(self._ports[qemu.TERMINAL], self._ports.get(qemu.SSH), self._folder)
            group.cancel_scope.cancel()

    def _give_time_to_pack(self, message: Message) -> None:
        """Give what follows the command its own limit. Raises InvalidMessageError if that is unasked."""
        if not self._packs or self._of_command is None or message.exit_code is None:
            raise InvalidMessageError("it packs its counters, and no command has ended")
        self._packs = False  # once
        self._packing = message
        self._of_command.deadline = anyio.current_time() + _PACKING_LIMIT

    async def _expect(self, event: str) -> Message | None:
        """The guest's next message, which must be `event`; None if the guest is gone or failed.

        Raises InvalidMessageError for any other message.
        """
        message = await self._control.receive()
        while message is not None and message.event in ("step", "unread", "packing"):
            if message.event == "step":
                if self.stopwatch.steps == _MAX_STEPS:
                    raise InvalidMessageError("more steps than any guest takes")
                self.stopwatch.begin(message.message)
                self._evidence.step = message.message
            elif message.event == "packing":
                self._give_time_to_pack(message)
            else:
                self._feed.unread()
            message = await self._control.receive()
        if message is None:
            return None
        if message.event == "failed":
            self._evidence.init_failed = message.message
            return None
        if message.event != event or (event == "exited" and message.exit_code is None):
            raise InvalidMessageError(f"{message.event!r} instead of {event!r}")
        return message
