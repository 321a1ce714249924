"""Runs many cells at once: each waits for those it comes after; one cell's error stays its own."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable

import anyio
import msgspec

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError, host_error
from quizmatrix.core.units import format_seconds
from quizmatrix.model.events import CellFinished, CellNote, Event
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.stage import Stage
from quizmatrix.model.task import Task
from quizmatrix.prepare.preparer import Preparer
from quizmatrix.run.cell import run_cell
from quizmatrix.run.job import RunCell
from quizmatrix.run.observer import InputSource
from quizmatrix.runs.directory import RunDirectory
from quizmatrix.schedule.admission import Admission, host_admission
from quizmatrix.schedule.attempts import Attempts, PassOn, not_run
from quizmatrix.schedule.places import Here, JobPlace
from quizmatrix.schedule.plan import Plan, longest_first


class Scheduler:
    """Runs a plan's tasks into a run directory."""

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        preparer: Preparer,
        sink: Callable[[Event], None],
        admission: Admission | None = None,
        run_cell: RunCell = run_cell,
        place: JobPlace | None = None,
    ) -> None:
        """sink: is called with every event. place: where the guests run; by default here, as far as
        `admission` lets them, by `run_cell`.
        """
        self._plan = plan
        self._directory = directory
        self._sink = sink
        if place is None:
            admission = admission or host_admission(plan.jobs, directory.folder)
            place = Here(admission, preparer.accelerator_for, run_cell)
        self._attempts = Attempts(plan, directory, preparer, self._emit, place)
        self._scope = anyio.CancelScope()
        self._results: dict[str, CellResult] = {}
        self._ended = {task.id: anyio.Event() for task in plan.tasks}
        self._ends = math.inf

    def pass_on(self, *, stdout: PassOn, stderr: PassOn) -> None:
        """Pass the command's output on to these functions while it runs."""
        streams = self._attempts.streams
        streams.stdout, streams.stderr = stdout, stderr

    def take_stdin(self, source: InputSource) -> None:
        """Let the command read from this source, if the plan's stdin is `-`."""
        self._attempts.streams.stdin = source

    def stop(self) -> None:
        """Stop all tasks that have not ended; `run` then returns."""
        self._scope.cancel()

    async def run(self) -> list[CellResult]:
        """Run all tasks; returns their results in the plan's order."""
        if self._plan.max_time is not None:
            self._ends = anyio.current_time() + self._plan.max_time - self._plan.spent
        try:
            with self._scope:
                async with task_group() as group:
                    group.start_soon(self._attempts.look_at_folders)
                    for task in longest_first(self._plan.tasks, self._plan.expected, self._plan.first):
                        group.start_soon(self._run_task, task)
        finally:
            self._attempts.disks.clear()
        for task in self._plan.tasks:
            if task.id not in self._results:
                self._finish(task, self._stopped(task, "stopped before it had ended"))
        return [self._results[task.id] for task in self._plan.tasks]

    async def _run_task(self, task: Task) -> None:
        result = await self._in_time(task)
        self._finish(task, self._attempts.disks.note_end(task, result))
        # A skipped task does not count: it was skipped because another one failed, or because time was over.
        if self._plan.fail_fast and not result.is_as_expected and result.outcome is not Outcome.SKIPPED:
            self.stop()
        with contextlib.suppress(QuizmatrixError):  # the end of the run tries again
            await self._attempts.disks.remove_unneeded()

    async def _in_time(self, task: Task) -> CellResult:
        with anyio.CancelScope(deadline=self._ends):
            return await self._conclude(task)
        limit = f"the run's time of {format_seconds(self._plan.max_time or 0)} was over"
        started = self._attempts.started.get(task.id)
        if started is None:
            return not_run(task, Outcome.SKIPPED, f"{limit} before it had started")
        ran = format_seconds(anyio.current_time() - started)
        return self._stopped(task, f"{limit}: stopped after {ran}")

    def _stopped(self, task: Task, why: str) -> CellResult:
        """The result of a task that was stopped. What its first guest had shown is not lost."""
        first = self._attempts.first.get(task.id)
        shown = f"; its first guest: {first.outcome} ({first.detail})" if first else ""
        return not_run(task, Outcome.CANCELLED, why + shown)

    async def _conclude(self, task: Task) -> CellResult:
        """The result of a task, whatever error occurs."""
        try:
            return self._attempts.known_before(task) or await self._run(task)
        except QuizmatrixError as error:
            # Something is missing on the host or in the archive, so the cell is untested.
            return not_run(task, Outcome.UNPREPARED, error.in_full)
        except OSError as error:
            return not_run(task, Outcome.LOST, host_error(f"run {task.id}", error).in_full)
        except Exception as error:
            # A bug must not stop the other cells, and must not be hidden.
            self._emit(CellNote(cell=task.id, text=traceback.format_exc()))
            return not_run(task, Outcome.LOST, f"internal error: {error!r}")

    async def _run(self, task: Task) -> CellResult:
        began = anyio.current_time()
        prepared = await self._attempts.prepare(task)
        took = anyio.current_time() - began
        for before in task.after:
            self._attempts.reach(task, Stage.WAITING, 1)
            await self._ended[before].wait()
            if why := _why_not_after(self._results[before]):
                return not_run(task, Outcome.SKIPPED, why)
        result = await self._attempts.run(task, prepared, [self._results[before] for before in task.after])
        timings = msgspec.structs.replace(
            result.timings, prepare=round(took, 3), total=round((result.timings.total or 0) + took, 3)
        )
        return msgspec.structs.replace(result, timings=timings)

    def _finish(self, task: Task, result: CellResult) -> None:
        if self._plan.repeat is not None:
            result = msgspec.structs.replace(result, again=self._plan.repeat(task))
        self._results[task.id] = result
        self._ended[task.id].set()
        # The event is written first: if this process is killed, the events have all that results.json has.
        self._emit(CellFinished(result=result))
        self._directory.write_cell(task.folder, result)

    def _emit(self, event: Event) -> None:
        self._directory.write_event(event)
        self._sink(event)


def _why_not_after(before: CellResult) -> str:
    """Why a task that waited for `before`, which has ended, is not run; empty where it is run."""
    if before.outcome is Outcome.PASSED:
        return ""
    if before.outcome is Outcome.SKIPPED:
        return before.detail
    words = before.labels.words.not_passed if before.labels else f"{before.cell} has not passed"
    return f"{words}: {before.outcome}"
