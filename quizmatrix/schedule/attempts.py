"""Runs one task of a plan until there is a verdict: prepares its cell, waits for room, boots, and retries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model.cells import Cell
from quizmatrix.model.events import CellConsole, CellNote, CellReached, Event
from quizmatrix.model.job import CellJob
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Session
from quizmatrix.model.stage import Stage
from quizmatrix.model.task import Task
from quizmatrix.model.testchoice import TestChoice
from quizmatrix.prepare.preparer import Preparer
from quizmatrix.prepare.specify import Prepared, job_of
from quizmatrix.run import foreign
from quizmatrix.run.observer import InputSource, Observer, TerminalHost
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.admission import Need, need_of
from quizmatrix.schedule.handoff import HandedDisks
from quizmatrix.schedule.inputs import Inputs, folders_of
from quizmatrix.schedule.places import JobPlace
from quizmatrix.schedule.plan import Plan

PassOn = Callable[[bytes], Awaitable[None]]


class Streams(msgspec.Struct, kw_only=True):
    """Streams of this process for the command. stdin: what the command reads, if the plan's stdin is `-`."""

    stdin: InputSource | None = None
    stdout: PassOn | None = None
    stderr: PassOn | None = None

    @property
    def is_used_up(self) -> bool:
        """Whether the command has read from quizmatrix's stdin, so that it cannot be run again."""
        return self.stdin is not None and self.stdin.consumed


class Attempts:
    """Makes attempts at the tasks of one plan.

    streams: for the command. By the task's id, started: when its first guest started; first: what that one's
    result was, once further guests run.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        preparer: Preparer,
        emit: Callable[[Event], None],
        place: JobPlace,
    ) -> None:
        """emit: is called with every event. place: where the guests run."""
        self.streams = Streams()
        self.started: dict[str, float] = {}
        self.first: dict[str, CellResult] = {}
        self.disks = HandedDisks(directory.folder, plan.tasks)
        self._plan = plan
        self._directory = directory
        self._preparer = preparer
        self._emit = emit
        self._place = place
        self._inputs = Inputs(directory.folder)
        self._told: set[str] = set()
        self._hosts: dict[str, str] = {}

    async def look_at_folders(self) -> None:
        """Record the state of the folders that all guests see; done while the first guests boot."""
        await self._inputs.look(self._folders())

    def _folders(self) -> list[str]:
        guest = self._plan.guest
        work_tree = [guest.work_tree] if guest.work_tree else []
        return [*map(str, guest.layers), *work_tree, *(bind.path for bind in guest.binds)]

    def known_before(self, task: Task) -> CellResult | None:
        """The result of a task that need not be booted: it is skipped, or its program cannot run there.

        None for all other tasks. If a terminal is wanted, its program is not looked at.
        """
        plan = self._plan
        if task.cell.skipped:
            return not_run(task, Outcome.SKIPPED, task.cell.skipped)
        if plan.session is not None:
            return None
        hidden = [bind.guest for bind in plan.guest.binds]
        name = foreign.before_boot(task.cell, task.command, plan.guest.work_tree, hidden)
        if name is None:
            return None
        known = not_run(task, Outcome.FAILED, foreign.sentence(task.command, name))
        return msgspec.structs.replace(known, exit_code=foreign.EXIT_CANNOT_EXECUTE, foreign=name)

    async def prepare(self, task: Task) -> Prepared:
        """Make the artifacts of the task's cell. Raises QuizmatrixError where that fails."""
        self.reach(task, Stage.PREPARING, 1)
        if (error := self._plan.unbuilt.get(task.cell.unsharded)) is not None:
            raise error
        return await self._preparer.prepare(task.cell, lambda text: self._note(task.id, text))

    async def run(self, task: Task, prepared: Prepared, before: Sequence[CellResult]) -> CellResult:
        """Make attempts until there is a verdict, or the plan's retries are used up.

        before: the results of the tasks that this one waited for.
        """
        attempt, flaky = 1, ""
        while True:
            self.reach(task, Stage.WAITING, attempt)
            async with self._place.room(self._need(task), partial(self._note, task.id)):
                self.started.setdefault(task.id, anyio.current_time())
                spec, result = await self._attempt(task, prepared, attempt)
            if result.outcome.is_verdict or attempt > self._plan.retries:
                break
            is_last = self.streams.is_used_up
            follows = "its stdin is used up" if is_last else f"attempt {attempt + 1} follows"
            self._note(task.id, f"{result.outcome} ({result.detail}): {follows}")
            if is_last:
                break
            attempt, flaky = attempt + 1, f"{result.outcome} in the attempt before"
        result = await self._with_further_guests(task, prepared, attempt, spec, result)
        return msgspec.structs.replace(
            result,
            cell=task.id,
            attempts=attempt,
            expected=task.cell.expected,
            shard=_shard_of(task.cell),
            inputs="" if self.streams.is_used_up else await self._inputs.key(spec, before),
            flaky=flaky if flaky and result.outcome is Outcome.PASSED else result.flaky,
            labels=task.labels,
        )

    async def _attempt(self, task: Task, prepared: Prepared, number: int) -> tuple[CellSpec, CellResult]:
        open_session = self._plan.session
        session, terminal = open_session(prepared.has_sshd) if open_session is not None else (None, None)
        folder = self._directory.cell_folder(task.folder)
        choice = TestChoice(
            seconds=self._plan.test_seconds.get(task.cell.arch, {}) if task.cell.shard else {}
        )
        job = self._job(task, prepared, choice, session)
        return await self._run_job(task, job, folder, self._observer(task, number, terminal))

    def _need(self, task: Task) -> Need:
        accelerator = self._preparer.likely_accelerator(task.cell, self._plan.accelerator)
        wanted = task.disks
        return need_of(task.cell, accelerator, disks=wanted.count * wanted.size if wanted else 0)

    async def _with_further_guests(
        self, task: Task, prepared: Prepared, attempt: int, spec: CellSpec, first: CellResult
    ) -> CellResult:
        """The result of the cell, after what else has to run of its tests ran in further guests."""
        is_alone = task.labels is not None or self._plan.session is not None or self.streams.is_used_up
        if is_alone or first.outcome is Outcome.PASSED or not Path(spec.files.folder).is_dir():
            return first
        self.first[task.id] = first

        async def run_guest(name: str, choice: TestChoice, seconds: float) -> CellResult:
            self.reach(task, Stage.WAITING, attempt)
            tell = partial(self._note, task.id)
            async with self._place.room(self._need(task), tell, is_further=True):
                folder = self._directory.further_folder(task.folder, name)
                job = self._job(task, prepared, choice, None)
                # The first guest's limit, and what is left of it, are already multiplied.
                left = seconds / spec.machine.timeout_factor
                limits = msgspec.structs.replace(job.limits, timeout=left)
                job = msgspec.structs.replace(job, limits=limits)
                observer = self._observer(task, attempt, None)
                return (await self._run_job(task, job, folder, observer))[1]

        from quizmatrix.schedule.further import FurtherGuests

        further = FurtherGuests(
            Path(spec.files.folder),
            spec.command.tests,
            spec.limits.timeout,
            run_guest,
            lambda text: self._note(task.id, text),
        )
        try:
            return await further.complete(first, self._plan.reruns, spec.limits.tolerance.splat)
        except (OSError, QuizmatrixError) as error:
            # What the first guest did stays known, though this host has no room for more.
            self._note(task.id, f"its further guests are not counted: {error}")
            return first

    def _job(self, task: Task, prepared: Prepared, choice: TestChoice, session: Session | None) -> CellJob:
        plan = self._plan
        return job_of(
            task,
            prepared,
            plan.guest,
            accelerator=plan.accelerator,
            tests=choice,
            session=session,
            matrix=plan.matrix,
            again=plan.repeat(task) if plan.repeat else None,
        )

    async def _run_job(
        self, task: Task, job: CellJob, folder: Path, observer: Observer
    ) -> tuple[CellSpec, CellResult]:
        disks, hands_on = await self.disks.provide(task), self.disks.are_read_later(task)
        return await self._place.run(job, folder, disks, observer, hands_on=hands_on)

    async def _note_specification(self, task: Task, spec: CellSpec, why: str) -> None:
        """Say what a user has to know before the guest starts, and record what its folders hold now."""
        text = f"{spec.machine.arch.name}: {spec.machine.accelerator}, {why}"
        if text not in self._told:
            self._told.add(text)
            self._note("", text)
        for forward in spec.machine.network.forwards if spec.machine.network else ():
            leads = f"{forward.address}:{forward.port} leads to port {forward.to} of "
            # With several cells the note is one of the whole run: a cell's next note would replace it.
            alone = len(self._plan.tasks) == 1
            self._note(task.id if alone else "", leads + ("the guest" if alone else task.id))
        if spec.machine.debugger:
            from quizmatrix.run import debugger

            self._note(task.id, f"for gdb: {spec.files.folder}/{debugger.SCRIPT}")
        await self._inputs.look([path for path in folders_of(spec) if path not in self._folders()])

    def _observer(self, task: Task, attempt: int, terminal: TerminalHost | None) -> Observer:
        return Observer(
            specified=partial(self._note_specification, task),
            placed=partial(self._hosts.__setitem__, task.id),
            stage=lambda stage: self.reach(task, stage, attempt),
            note=lambda text: self._note(task.id, text),
            console=lambda line: self._emit(CellConsole(cell=task.id, line=line)),
            stdin=self.streams.stdin,
            stdout=self.streams.stdout,
            stderr=self.streams.stderr,
            terminal=terminal,
        )

    def reach(self, task: Task, stage: Stage, attempt: int) -> None:
        """Emit the event that a task has reached a stage."""
        if stage is Stage.WAITING:
            self._hosts.pop(task.id, None)
        host = self._hosts.get(task.id, "")
        self._emit(CellReached(cell=task.id, stage=stage, attempt=attempt, host=host))

    def _note(self, cell: str, text: str) -> None:
        self._emit(CellNote(cell=cell, text=text))


def not_run(task: Task, outcome: Outcome, detail: str) -> CellResult:
    """The result of a task without a verdict from a VM."""
    cell = task.cell
    return CellResult(
        cell=task.id,
        kernel=cell.kernel,
        release=None,
        arch=cell.arch,
        variant=cell.variant,
        shard=_shard_of(cell),
        accelerator=None,
        outcome=outcome,
        expected=cell.expected,
        detail=detail,
        append=cell.append,
        labels=task.labels,
    )


def _shard_of(cell: Cell) -> str | None:
    return str(cell.shard) if cell.shard else None
