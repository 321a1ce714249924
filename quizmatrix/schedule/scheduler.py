"""Runs many cells at once: waits for CPU and memory, retries, and keeps one cell's error from the others."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError, host_error
from quizmatrix.core.units import format_seconds
from quizmatrix.model.cells import Cell
from quizmatrix.model.events import CellConsole, CellFinished, CellNote, CellReached, Event
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Session
from quizmatrix.model.stage import Stage
from quizmatrix.model.task import Task
from quizmatrix.prepare.preparer import Preparer
from quizmatrix.prepare.specify import Prepared, specify
from quizmatrix.run import debugger, foreign
from quizmatrix.run.cell import run_cell
from quizmatrix.run.observer import InputSource, Observer, TerminalHost
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.admission import Admission, Need, host_admission, need_of
from quizmatrix.schedule.handoff import HandedDisks
from quizmatrix.schedule.inputs import Inputs, folders_of
from quizmatrix.schedule.plan import Plan, longest_first

PassOn = Callable[[bytes], Awaitable[None]]


class Scheduler:
    """Runs a plan's tasks into a run directory."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        preparer: Preparer,
        sink: Callable[[Event], None],
        admission: Admission | None = None,
        run_cell: Callable[[CellSpec, Observer], Awaitable[CellResult]] = run_cell,
    ) -> None:
        """`sink` sees every event. run_cell: what makes a result of a specification."""
        self._plan = plan
        self._directory = directory
        self._preparer = preparer
        self._sink = sink
        self._run_cell = run_cell
        self._admission = admission or host_admission(plan.jobs, directory.folder)
        self._inputs = Inputs(directory.folder)
        self._scope = anyio.CancelScope()
        self._results: dict[str, CellResult] = {}
        self._ended = {task.id: anyio.Event() for task in plan.tasks}
        self._handed_disks = HandedDisks(directory.folder, plan.tasks)
        self._started: dict[str, float] = {}
        self._ends = math.inf
        self._told: set[str] = set()
        self._stdout: PassOn | None = None
        self._stderr: PassOn | None = None
        self._stdin: InputSource | None = None

    def pass_on(self, *, stdout: PassOn, stderr: PassOn) -> None:
        """Give the command's output to these as it comes."""
        self._stdout, self._stderr = stdout, stderr

    def take_stdin(self, source: InputSource) -> None:
        """Give the command this to read, where the plan's stdin is `-`."""
        self._stdin = source

    def stop(self) -> None:
        """Stop every task that has not ended; `run` then returns."""
        self._scope.cancel()

    async def run(self) -> list[CellResult]:
        """Run every task; the results in the order of the plan's."""
        if self._plan.max_time is not None:
            self._ends = anyio.current_time() + self._plan.max_time - self._plan.spent
        try:
            with self._scope:
                async with task_group() as group:
                    group.start_soon(self._inputs.look, self._folders())
                    for task in longest_first(self._plan.tasks, self._plan.expected, self._plan.first):
                        group.start_soon(self._run_task, task)
        finally:
            self._handed_disks.clear()
        for task in self._plan.tasks:
            if task.id not in self._results:
                self._finish(task, _no_run(task, Outcome.CANCELLED, "stopped before it had ended"))
        return [self._results[task.id] for task in self._plan.tasks]

    def _folders(self) -> list[str]:
        """The folders that all guests see: looked at while the first ones boot."""
        guest = self._plan.guest
        work_tree = [guest.work_tree] if guest.work_tree else []
        return [*map(str, guest.layers), *work_tree, *(bind.path for bind in guest.binds)]

    async def _run_task(self, task: Task) -> None:
        result = await self._in_time(task)
        self._finish(task, self._handed_disks.settle(task, result))
        # What is skipped is so because of another, which has failed or was to, or for want of time.
        if self._plan.fail_fast and not result.is_as_expected and result.outcome is not Outcome.SKIPPED:
            self.stop()
        with contextlib.suppress(QuizmatrixError):  # the end of the run removes them, too
            await self._handed_disks.remove_unneeded()

    async def _in_time(self, task: Task) -> CellResult:
        with anyio.CancelScope(deadline=self._ends):
            return await self._conclude(task)
        limit = f"the run's time of {format_seconds(self._plan.max_time or 0)} was over"
        if task.id not in self._started:
            return _no_run(task, Outcome.SKIPPED, f"{limit} before it had started")
        ran = format_seconds(anyio.current_time() - self._started[task.id])
        return _no_run(task, Outcome.CANCELLED, f"{limit}: stopped after {ran}")

    async def _conclude(self, task: Task) -> CellResult:
        """How a task ended, whatever went wrong."""
        try:
            return self._known_before(task) or await self._attempts(task)
        except QuizmatrixError as error:
            # What is missing on the host or in the archive leaves the cell untested.
            return _no_run(task, Outcome.UNPREPARED, _in_full(error))
        except OSError as error:
            return _no_run(task, Outcome.LOST, _in_full(host_error(f"run {task.id}", error)))
        except Exception as error:
            # A fault of ours in one cell must not take the others with it, nor be hidden.
            self._emit(CellNote(cell=task.id, text=traceback.format_exc()))
            return _no_run(task, Outcome.LOST, f"internal error: {error!r}")

    async def _attempts(self, task: Task) -> CellResult:
        began = anyio.current_time()
        self._reach(task, Stage.PREPARING, 1)
        if (error := self._plan.unbuilt.get(task.cell.unsharded)) is not None:
            raise error
        prepared = await self._preparer.prepare(
            task.cell, lambda text: self._emit(CellNote(cell=task.id, text=text))
        )
        ready = anyio.current_time()
        for before in task.after:
            self._reach(task, Stage.WAITING, 1)
            await self._ended[before].wait()
            if why := _why_not_after(self._results[before]):
                return _no_run(task, Outcome.SKIPPED, why)
        attempt, flaky = 1, ""
        while True:
            self._reach(task, Stage.WAITING, attempt)
            need = self._need(task)
            await self._admission.enter(need, lambda text: self._emit(CellNote(cell=task.id, text=text)))
            self._started.setdefault(task.id, anyio.current_time())
            try:
                spec, result = await self._attempt(task, prepared, attempt)
            finally:
                self._admission.leave(need)
            if result.outcome.is_verdict or attempt > self._plan.retries:
                break
            follows = "its stdin is used up" if self._is_used_up else f"attempt {attempt + 1} follows"
            self._emit(CellNote(cell=task.id, text=f"{result.outcome} ({result.detail}): {follows}"))
            if self._is_used_up:
                break
            attempt, flaky = attempt + 1, f"{result.outcome} in the attempt before"
        timings = msgspec.structs.replace(
            result.timings,
            prepare=round(ready - began, 3),
            total=round((result.timings.total or 0) + ready - began, 3),
        )
        return msgspec.structs.replace(
            result,
            cell=task.id,
            attempts=attempt,
            timings=timings,
            expected=task.cell.expected,
            shard=_shard_of(task.cell),
            inputs=await self._inputs_of(spec, task),
            flaky=flaky if result.outcome.is_verdict and flaky else result.flaky,
            labels=task.labels,
        )

    async def _attempt(self, task: Task, prepared: Prepared, number: int) -> tuple[CellSpec, CellResult]:
        open_session = self._plan.session
        session, terminal = open_session(prepared.has_sshd) if open_session is not None else (None, None)
        spec = await self._specify(task, prepared, session)
        await self._inputs.look([path for path in folders_of(spec) if path not in self._folders()])
        return spec, await self._run_cell(spec, self._observer(task, number, terminal))

    @property
    def _is_used_up(self) -> bool:
        """Whether what the command read through our stdin could not be read again."""
        return self._stdin is not None and self._stdin.consumed

    async def _inputs_of(self, spec: CellSpec, task: Task) -> str:
        before = [self._results[one] for one in task.after]
        return "" if self._is_used_up else await self._inputs.key(spec, before)

    def _known_before(self, task: Task) -> CellResult | None:
        """How a task ends for which nothing need be booted: its program is for another architecture.

        Not before a terminal, which is wanted anyway.
        """
        plan = self._plan
        if plan.session is not None:
            return None
        hidden = [bind.guest for bind in plan.guest.binds]
        name = foreign.before_boot(task.cell, task.command, plan.guest.work_tree, hidden)
        if name is None:
            return None
        known = _no_run(task, Outcome.FAILED, foreign.sentence(task.command, name))
        return msgspec.structs.replace(known, exit_code=foreign.EXIT_CANNOT_EXECUTE, foreign=name)

    def _need(self, task: Task) -> Need:
        accelerator = self._preparer.likely_accelerator(task.cell, self._plan.accelerator)
        wanted = task.disks
        return need_of(task.cell, accelerator, disks=wanted.count * wanted.size if wanted else 0)

    async def _specify(self, task: Task, prepared: Prepared, session: Session | None) -> CellSpec:
        plan = self._plan
        answer = await self._preparer.accelerator(task.cell, prepared, plan.accelerator)
        text = f"{task.cell.arch}: {answer.accelerator}, {answer.why}"
        if text not in self._told:
            self._told.add(text)
            self._emit(CellNote(cell="", text=text))
        folder = self._directory.cell_folder(task.folder)
        spec = await specify(
            task,
            prepared,
            answer.accelerator,
            folder=folder,
            asked=plan.guest,
            disks=await self._handed_disks.provide(task),
            session=session,
            matrix=plan.matrix,
            again=plan.repeat(task) if plan.repeat else None,
        )
        for forward in spec.machine.network.forwards if spec.machine.network else ():
            leads = f"{forward.address}:{forward.port} leads to port {forward.to} of "
            # Of several cells it is said of the whole run: a cell's next note would take its place.
            alone = len(plan.tasks) == 1
            note = CellNote(cell=task.id if alone else "", text=leads + ("the guest" if alone else task.id))
            self._emit(note)
        if spec.machine.debugger:
            self._emit(CellNote(cell=task.id, text=f"for gdb: {folder}/{debugger.SCRIPT}"))
        return spec

    def _observer(self, task: Task, attempt: int, terminal: TerminalHost | None) -> Observer:
        return Observer(
            stage=lambda stage: self._reach(task, stage, attempt),
            console=lambda line: self._emit(CellConsole(cell=task.id, line=line)),
            stdin=self._stdin,
            stdout=self._stdout,
            stderr=self._stderr,
            terminal=terminal,
        )

    def _reach(self, task: Task, stage: Stage, attempt: int) -> None:
        self._emit(CellReached(cell=task.id, stage=stage, attempt=attempt))

    def _finish(self, task: Task, result: CellResult) -> None:
        if self._plan.repeat is not None:
            result = msgspec.structs.replace(result, again=self._plan.repeat(task))
        self._results[task.id] = result
        self._ended[task.id].set()
        # In this order: whatever kills us, the events lack nothing that results.json has.
        self._emit(CellFinished(result=result))
        self._directory.write_cell(task.folder, result)

    def _emit(self, event: Event) -> None:
        self._directory.write_event(event)
        self._sink(event)


def _no_run(task: Task, outcome: Outcome, detail: str) -> CellResult:
    """The result of a task that got no verdict from a VM."""
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


def _why_not_after(before: CellResult) -> str:
    """Why what waits for `before`, which has ended, is not run; empty where it is."""
    if before.outcome is Outcome.PASSED:
        return ""
    if before.outcome is Outcome.SKIPPED:
        return before.detail
    words = before.labels.words.not_passed if before.labels else f"{before.cell} has not passed"
    return f"{words}: {before.outcome}"


def _shard_of(cell: Cell) -> str | None:
    return str(cell.shard) if cell.shard else None


def _in_full(error: QuizmatrixError) -> str:
    return f"{error}. {error.next_step}" if error.next_step else str(error)
