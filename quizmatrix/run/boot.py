"""Boots one guest once: starts it, gives it the command, and records what the verdict needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from quizmatrix.core import later, untrusted
from quizmatrix.core.concurrency import run_cleanup, task_group
from quizmatrix.core.errors import HostError, QuizmatrixError, host_error
from quizmatrix.model.finding import FindingSummary
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.model.stage import Stage
from quizmatrix.run import qemu, runlayer, stdin, vm
from quizmatrix.run.cellfolder import artifacts_of, host_folder_of
from quizmatrix.run.channel import Output
from quizmatrix.run.consolelog import ConsoleLog
from quizmatrix.run.conversation import Conversation
from quizmatrix.run.ends import QMP
from quizmatrix.run.explain import Inquiry
from quizmatrix.run.hostwatch import HostWatch
from quizmatrix.run.memoryfile import MemoryFile
from quizmatrix.run.observer import Observer
from quizmatrix.run.qmp import Monitor, QmpError
from quizmatrix.run.shared import Shared
from quizmatrix.run.start import Start
from quizmatrix.run.verdict import Evidence, Rules

# Seconds without new output after which we stop waiting for the rest of it, once the command has ended.
_DRAIN_LIMIT = 10.0
# Seconds for all of that: processes that the command left behind may go on writing.
_DRAIN_AT_MOST = 30.0

# Seconds to wait, after the command's end, for the console messages that were printed during it.
_CONSOLE_LIMIT = 3.0

# Seconds for saving a guest. That takes a tenth of a second; a slow disk needs more.
_SAVE_LIMIT = 120.0

# Seconds for making a guest's files safe: normally, and once we are cancelled.
_CLEANUP_LIMIT = 1800.0
_CLEANUP_LIMIT_CANCELLED = 10.0


class Boot:
    """One boot of one guest.

    evidence: what was observed so far. console: its console. conversation: the messages of its control port.
    """

    def __init__(
        self,
        spec: CellSpec,
        ends: vm.HostEnds,
        marker: bytes,
        observer: Observer,
        start: Start,
    ) -> None:
        """Starts nothing. marker: ends the command's output streams."""
        self._start = start
        self.evidence = Evidence(rules=_rules(spec), notes=[])
        self._host = HostWatch()
        self._shared = Shared(spec)
        self._spec = spec
        self._folder = Path(spec.files.folder)
        self.console = ConsoleLog(ends.console, self._folder / "console.log", observer.console, start.console)
        self._ends = ends
        self._outputs = [
            Output(ends.ports[name], self._folder / name, marker, pass_on)
            for name, pass_on in (("stdout", observer.stdout), ("stderr", observer.stderr))
        ]
        self._feed = stdin.Feed(spec, ends.ports.get(qemu.STDIN), observer.stdin)
        self._talk = anyio.CancelScope()
        self._monitor = Monitor(ends.ports[qemu.MONITOR])
        self._memory = MemoryFile(spec)
        self._inquiry = Inquiry(spec, self._monitor, self.console, self._memory)
        self.conversation = Conversation(spec, ends.ports, self._feed, observer, self.evidence, start)

    async def run(self, shares: list[Share], meanwhile: Callable[[], None]) -> None:
        """Boot the VM, run the command, and end the VM; `evidence` and `console` then have what happened.

        meanwhile: called once QEMU starts.
        """
        self.conversation.reach(Stage.BOOTING)
        is_to_be_booted = False
        try:
            await self._boot_and_talk(shares, meanwhile)
            # A restored guest that did not answer has begun no command; the same files are for the next.
            is_to_be_booted = bool(self.conversation.no_answer)
        finally:
            if not is_to_be_booted:
                await self._end()
        # Not after a cancellation: nobody waits for the result.
        self.evidence.notes += await self._inquiry.read_memory()

    async def _end(self) -> None:
        """Record what is left of the guest, which has ended, even if we were cancelled."""
        try:
            # The files that it left may be hostile.
            await run_cleanup(self._clean_up, limit=_CLEANUP_LIMIT, limit_cancelled=_CLEANUP_LIMIT_CANCELLED)
        finally:
            self._record_end()
        self.evidence.excess, self.evidence.host.shortage = self._shared.excess, self._shared.shortage
        self.evidence.host.qemu_words = self._ends.log.last_words
        self.evidence.notes += [self._feed.error] if self._feed.error else []
        self.evidence.host.is_out_of_memory = self._host.has_killed_for_memory
        self.evidence.notes += self._host.notes

    async def _clean_up(self) -> None:
        try:
            self.evidence.notes += await self._shared.finish()
            if self._shared.is_finished:
                self.evidence.notes += self._inquiry.hand_over_memory()
            if self._spec.keeps.counters:
                from quizmatrix.run import counters

                self.evidence.notes += counters.keep(self._spec)
            # A file that is bound for writing has its folder there, and the guest could write to that.
            self.evidence.notes += await untrusted.remove(host_folder_of(self._folder))
        except QuizmatrixError as error:
            self.evidence.notes.append(str(error))

    async def read_tests(self) -> None:
        """Read the results of single tests from the command's output and the console."""
        from quizmatrix.subtests import reading, running

        stdout = self._outputs[0]
        is_whole = stdout.ended.is_set() and not stdout.was_cut
        try:
            self.evidence.tests = await reading.keep_without_blocking(
                reading.CellOutput(
                    folder=str(self._folder),
                    is_whole=is_whole,
                    console_is_whole=not self.console.was_cut,
                    known=self._spec.limits.known,
                    known_quietly=self._spec.limits.known_quietly,
                    layers=[share.path for share in self._spec.files.layers],
                    live=None if self.evidence.ended else str(artifacts_of(self._folder) / running.LIVE),
                )
            )
        except OSError as error:
            _tests_are_unknown(self.evidence, str(host_error("read the tests in its output", error)))
        except HostError as error:
            _tests_are_unknown(self.evidence, f"the tests in its output were not read: {error}")
        self.evidence.notes += self.evidence.tests.limits
        if self.evidence.tests.kernel_has_some and self.evidence.ended and not self.console.watch.ended:
            self.evidence.notes.append("the end of its console did not arrive, and may have results of tests")

    async def keep_findings(self) -> list[FindingSummary]:
        """Write the findings to the cell's folder; return their summaries."""
        found = self._inquiry.findings()
        if not found:
            return []
        from quizmatrix.run import findings

        try:
            return await findings.write_findings(self._spec, found)
        except OSError as error:
            self.evidence.notes.append(str(host_error("keep its findings", error)))
        except QuizmatrixError as error:
            self.evidence.notes.append(f"its findings were not kept: {error}")
        return []

    async def _boot_and_talk(self, shares: list[Share], meanwhile: Callable[[], None]) -> None:
        async with task_group() as group:
            async with vm.running(self._spec, shares, self._ends, self._start.memory) as machine:
                later.load()
                meanwhile()
                group.start_soon(self._guard, self.console.pump)
                group.start_soon(self._guard, self._ends.log.pump)
                for output in self._outputs:
                    group.start_soon(self._guard, output.pump)
                group.start_soon(self._feed.pump)
                with self._talk:
                    async with task_group() as talk:
                        talk.start_soon(self._end_dead_guest)
                        talk.start_soon(self._enforce_shared_limit, machine)
                        await self.conversation.run(partial(self._save, machine, group))
                        if self.evidence.ended is not None:
                            await self._wait_for_rest()
                        elif self.evidence.expired is not None:
                            self.evidence.notes += await self._inquiry.ask(self.evidence, self.conversation)
                        if self._has_gone_silent:
                            self.evidence.host.qemu_status = await machine.wait_for_status()
                        talk.cancel_scope.cancel()
                self._feed.stop()
            if machine.outlived_kill:
                # QEMU still has its ends of the ports open, so the readers would wait for ever.
                self.evidence.notes.append(f"QEMU (process {machine.pid}) was killed, and has not died")
                group.cancel_scope.cancel()

    @property
    def _has_gone_silent(self) -> bool:
        """Whether the guest sent no final message, so that only QEMU's exit status can explain its end.

        Not a restored one that did not answer: it would go on meanwhile, and perhaps run the command.
        """
        seen = self.evidence
        is_open = seen.ended is None and seen.expired is None and not seen.invalid_message
        return is_open and not self.conversation.no_answer

    async def _wait_for_rest(self) -> None:
        """Wait, after the command's end, for the rest of its output and of the console."""
        self.conversation.reach(Stage.ENDING)
        await self._drain()
        with anyio.move_on_after(_CONSOLE_LIMIT):
            await self.console.ended.wait()

    async def _drain(self) -> None:
        """Wait for the ends of the output streams, as long as data arrives."""
        if not self._folder.is_dir():
            return  # the folder was removed, and with it the marker that the guest needs to end them
        latest = anyio.current_time() + _DRAIN_AT_MOST
        for output in self._outputs:
            while not output.ended.is_set():
                before = output.received
                with anyio.move_on_after(_DRAIN_LIMIT):
                    await output.ended.wait()
                came = output.received > before and anyio.current_time() < latest
                came = came or output.is_passing_on
                if not came and not output.ended.is_set():
                    self.evidence.notes.append("the end of the output did not arrive")
                    break

    async def _end_dead_guest(self) -> None:
        """End the talk if a kernel panics or restarts but QEMU does not end: some kernels only halt."""
        await self.console.dying.wait()
        is_own_doing = self.evidence.expired is not None
        if self._spec.machine.debugger and self.console.watch.panic is not None and not is_own_doing:
            error = await self._memory.keep(self._monitor)
            self.evidence.notes += [error] if error else []
        await anyio.sleep(vm.END_GRACE)
        self._talk.cancel()

    async def _enforce_shared_limit(self, machine: vm.VM) -> None:
        """End a guest that exceeds the limit of /shared, before this host's disk is full."""
        await self._shared.wait_for_excess(machine.pid)
        self._talk.cancel()

    async def _save(self, machine: vm.VM, group: TaskGroup) -> None:
        """Save the booted guest as a template, if one is to be made, and publish that in `group`."""
        saving = self._start.saving
        if saving is None:
            return
        if self.console.watch.findings or self.console.dying.is_set():
            saving.error = "its kernel has complained while it booted"
        else:
            try:
                with anyio.fail_after(_SAVE_LIMIT):
                    await saving.save(self._ends.ports[QMP], machine, self.console.printed)
            except (QmpError, OSError) as error:
                saving.error = str(error) or "it took too long"
                if await machine.wait_for_status() is None and not self.console.dying.is_set():
                    self.evidence.host.fault = f"the guest was to be saved, and did not go on: {saving.error}"
                    self._talk.cancel()
                return
        group.start_soon(saving.publish, self._folder / "console.log")

    async def _guard(self, reader: Callable[[], Awaitable[None]]) -> None:
        """Run a reader; if it cannot write its file, only this cell ends."""
        try:
            await reader()
        except OSError as error:
            self.evidence.host.fault = str(host_error(f"write the output of {self._spec.labels.cell}", error))
            self._talk.cancel()

    def _record_end(self) -> None:
        self.console.watch.finish()
        self.evidence.notes += [self.console.cut] if self.console.cut else []
        if not self._folder.is_dir():
            self.evidence.host.fault = f"its folder {self._folder} was removed while it ran"
            return
        self.evidence.notes += self._shared.mark_unsafe_unless_finished()
        try:
            runlayer.clean_run_layer(self._folder)
        except OSError as error:
            self.evidence.notes.append(str(host_error(f"tidy {self._folder}", error)))
        self.evidence.notes += [self._ends.log.cut] if self._ends.log.cut else []
        for name, output in zip(("stdout", "stderr"), self._outputs, strict=True):
            if output.was_cut:
                self.evidence.notes.append(
                    f"{name} was {output.received} bytes long; the first {output.kept} are kept"
                )


def _tests_are_unknown(evidence: Evidence, why: str) -> None:
    if evidence.ended is not None and evidence.ended.exit_code == 0:
        # Tests may have failed all the same.
        evidence.host.fault = why
    else:
        evidence.notes.append(why)


def _rules(spec: CellSpec) -> Rules:
    facts = spec.machine.arch.facts
    return Rules(
        tolerance=spec.limits.tolerance,
        factor=spec.machine.timeout_factor,
        silent_reset_is_fault=facts.kernel.silent_reset == "fault",
    )
