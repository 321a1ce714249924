"""How a guest starts: booted, or booted and saved on the way as a template, or restored from a template."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.core import paths, sparse
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, QuizmatrixError, UnpreparedError, host_error
from quizmatrix.core.uses import Uses
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.model.start import StartKind
from quizmatrix.run import qemu, template
from quizmatrix.run.channel import Port
from quizmatrix.run.headstart import HeadStart
from quizmatrix.run.qmp import Monitor, QmpError
from quizmatrix.run.restoring import renewal, restore
from quizmatrix.run.template import TEMPLATES, Template
from quizmatrix.run.vm import VM

# Seconds that a booted guest has to come to rest, and between two looks.
_REST_LIMIT = 0.5
_REST_PAUSE = 0.002


class Start:
    """How one guest starts.

    template: what it is restored from; None: it is booted. saving: makes a template of it on the way, if one
    is to be made. note: for the user, why the guest is not saved or restored; empty if it is.
    ahead: what has restored the guest, if it had a head start.
    """

    def __init__(
        self,
        template: Template | None = None,
        saving: Saving | None = None,
        note: str = "",
        ahead: HeadStart | None = None,
    ) -> None:
        """By default, a guest that is only booted."""
        self.template = template
        self.saving = saving
        self.note = note
        self.ahead = ahead

    @property
    def joined_ahead(self) -> bool:
        """Whether the guest was told to join its layers before the run was ready for it."""
        return self.ahead is not None and bool(self.ahead.guess.joined)

    @property
    def kind(self) -> StartKind:
        """Whether the guest is booted or restored."""
        return StartKind.COLD if self.template is None else StartKind.WARM

    @property
    def memory(self) -> qemu.Memory | None:
        """The guest's memory, for QEMU's command line."""
        if self.template is not None:
            file, is_read_only = str(self.template.memory_file), self.template.is_read_only
            return qemu.Memory(template=file, is_read_only=is_read_only)
        return qemu.Memory() if self.saving is not None else None

    @property
    def console(self) -> bytes:
        """What the guest had printed when it was saved; empty if it is booted. Raises OSError."""
        return self.template.console_file.read_bytes() if self.template is not None else b""

    @property
    def renews(self) -> bool:
        """Whether the guest, which was saved on the way, has to get its own clock and randomness."""
        return self.saving is not None and self.saving.was_stopped

    def message(self) -> bytes:
        """The line that lets the guest start. It is sent at once, as the time may be in it."""
        if not self.renews:
            return b'{"op":"start"}\n'
        return f'{{"op":"start",{renewal()}}}\n'.encode()

    async def restore(self, monitor: Port, control: Port) -> None:
        """Restore the guest, which then runs, and says that it is renewed. Raises QmpError if that fails.

        monitor: QMP, which is closed then. control: the guest's port.
        """
        if self.template is None:
            return
        if self.ahead is None:
            work = partial(restore, monitor.host, control.host, self.template.state_file)
            error = await in_thread(work, is_alone=True)
        elif self.ahead.is_restoring:
            error = await in_thread(self.ahead.wait, is_alone=True)
        else:
            error = self.ahead.wait()
        if error:
            raise QmpError(error)
        # QEMU would keep for ever what it reports and nobody reads.
        monitor.close()


COLD = Start()


class Saving:
    """Makes a template of a guest that has booted, and publishes it."""

    def __init__(self, key: str, folder: Path, rest: float, done: AsyncExitStack) -> None:
        """folder: for the template's files. rest: seconds for which the guest's CPUs have to sleep before.

        done: is closed once others can use the template.
        """
        self.is_saved = False
        # Its clock has to be set then, whether or not it was saved.
        self.was_stopped = False
        # Why there is no template.
        self.error = ""
        self._key = key
        self._folder = folder
        self._rest = rest
        self._done = done
        self._console = 0
        self._is_read_only = False

    async def save(self, port: Port, machine: VM, printed: Callable[[], Awaitable[int]]) -> None:
        """Save the guest, which is stopped for it, and let it go on. port: QMP, which is closed then.

        printed: says how many bytes the stopped guest has printed. Raises QmpError or OSError if the guest
        does not go on, or has ended.
        """
        monitor = Monitor(port)
        await monitor.open()
        self._is_read_only = await monitor.has_property(qemu.MEMORY_FILE, qemu.READ_ONLY)
        if await _is_idle(machine.pid, await monitor.cpu_threads(), self._rest):
            await monitor.stop()
            self.was_stopped = True
            try:
                self.error = await self._write(monitor, machine.memory, printed)
            except QmpError as error:
                self.error = str(error)
            self.is_saved = not self.error
            await monitor.go_on()
        else:
            self.error = "its CPUs did not come to rest"
        port.close()

    async def _write(self, monitor: Monitor, memory: int, printed: Callable[[], Awaitable[int]]) -> str:
        """Write the template's files; why that failed, or an empty text.

        Only errors of files: after one of the monitor, nobody knows which command it answers.
        """
        try:
            file = (self._folder / template.STATE).open("wb")
        except OSError as error:
            return str(host_error("keep its template", error))
        with file:
            await monitor.save(file.fileno())
        copy = partial(sparse.copy, memory, self._folder / template.MEMORY)
        try:
            # Not before: while QEMU saves, it does not let the guest go on.
            await in_thread(copy, is_awaited=True)
            self._console = await printed()
        except OSError as error:
            return str(host_error("keep its template", error))
        except QuizmatrixError as error:
            return str(error)
        return ""

    async def publish(self, console: Path) -> None:
        """Let others use the template. console: the file with what the guest has printed."""
        if self.is_saved:
            try:
                await in_thread(partial(self._complete, console), is_awaited=True)
            except OSError as error:
                self.error = str(host_error("keep its template", error))
            except QuizmatrixError as error:
                self.error = str(error)
        await self._done.aclose()

    def _complete(self, console: Path) -> None:
        with console.open("rb") as source:
            (self._folder / template.CONSOLE).write_bytes(source.read(self._console))
        template.complete(self._folder, self._key, is_read_only=self._is_read_only)
        if template.drop(self._key):
            self._folder.rename(TEMPLATES.path(self._key))
            template.keep_to_budget()
        else:
            self.error = "an older one is in use"


async def _is_idle(pid: int, threads: list[int], rest: float) -> bool:
    """Wait until the guest's CPUs have slept for `rest` seconds; False if they do not.

    An interrupt that waits for a CPU is not part of what QEMU saves on every machine (not on s390x, under
    TCG). A restored guest would wait for it for ever: the device sends no second one.
    """
    before: list[str] = []
    began = since = anyio.current_time()
    while (moment := anyio.current_time()) < began + _REST_LIMIT:
        now = [_thread_state(pid, thread) for thread in threads]
        if now != before or not all(state.startswith("S ") for state in now):
            before, since = now, moment
        elif moment - since >= rest:
            return True
        await anyio.sleep(_REST_PAUSE)
    return False


def _thread_state(pid: int, thread: int) -> str:
    """A thread's state, and how much CPU time it has taken (proc(5)). Raises OSError."""
    fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    switches = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
    return f"{fields[0]} {switches}"


@asynccontextmanager
async def starting(spec: CellSpec, shares: list[Share], *, thoroughly: bool = False) -> AsyncIterator[Start]:
    """How to start a guest. Waits while another one, of which it can be restored, is being saved.

    thoroughly: the template is read. Raises UnpreparedError if it has to start warm and cannot.
    """
    asked = spec.machine.start
    note = "" if asked is StartKind.COLD else template.why_not(spec)
    if note or asked is StartKind.COLD:
        if asked is StartKind.WARM:
            raise UnpreparedError(
                f"{spec.labels.cell} cannot start warm", cause=note, next_step="Leave out --warm."
            )
        yield Start(note=note)
        return
    key = template.key_for(spec, shares)
    uses = Uses()
    waited: list[None] = []
    async with AsyncExitStack() as lock:
        found = await _usable(key, uses, thoroughly)
        if found is None:
            await lock.enter_async_context(TEMPLATES.locked(key, lambda: waited.append(None)))
            found = await _usable(key, uses, thoroughly)
        if found is not None:
            await lock.aclose()
            try:
                yield Start(template=found)
            finally:
                uses.release()
            return
        if asked is StartKind.WARM:
            raise UnpreparedError(
                f"{spec.labels.cell} cannot start warm",
                cause="there is no template of such a guest",
                next_step="Run it once without --warm, which makes one.",
            )
        if waited:
            # Else the guests of a kind that cannot be saved would start one after the other.
            await lock.aclose()
            yield Start(note="another guest of its kind, which it waited for, was not saved")
            return
        try:
            scratch = lock.enter_context(paths.scratch(TEMPLATES.root, template.SCRATCH))
            place = Path(scratch) / "template"
            place.mkdir(mode=0o755)
        except OSError as error:
            yield Start(note=str(host_error("keep its template", error)))
            return
        yield Start(saving=Saving(key, place, spec.machine.arch.facts.qemu.rest, lock))


async def _usable(key: str, uses: Uses, thoroughly: bool) -> Template | None:
    """A stored template, which is not removed while `uses` is there."""
    try:
        found = await in_thread(partial(template.find, key, thoroughly=thoroughly))
    except DamagedError:
        template.drop(key)
        return None
    if found is None or not await uses.hold(found.folder):
        return None
    template.note_use(found)
    return found
