"""Disks that are handed from cell to cell: makes them, copies them for each reader, and removes them.

They lie in `disks/` in the folder of the task whose guest has them. No guest uses another guest's disks: each
gets its own copy, which shares blocks with the original where the file system can (cp --reflink).
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core.concurrency import in_thread
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import HANDED_DISK, Disk
from quizmatrix.model.task import Task
from quizmatrix.run import handeddisks
from quizmatrix.run.cellfolder import handed_disks_of

# Outcomes of tasks after which the disks that they got need not be kept: the disks are not to blame.
_SAYS_NOTHING = frozenset({Outcome.PASSED, Outcome.UNPREPARED, Outcome.CANCELLED, Outcome.SKIPPED})


class HandedDisks:
    """The disks of a run's tasks. The scheduler calls it before an attempt and after each task's end."""

    def __init__(self, run: Path, tasks: list[Task]) -> None:
        """run: its directory."""
        self._run = run
        self._tasks = {task.id: task for task in tasks}
        self._waited_for: dict[str, set[str]] = {task.id: set() for task in tasks}
        for task in tasks:
            if task.disks is not None and task.disks.copy_of is not None:
                self._waited_for[task.disks.copy_of].add(task.id)
        self._kept: set[str] = set()
        self._unneeded: list[str] = []

    async def provide(self, task: Task) -> list[Disk]:
        """Make the disks for an attempt at a task, whose folder exists. Raises HostError where that fails."""
        wanted = task.disks
        if wanted is None:
            return []
        # The disks of an earlier attempt are removed.
        for old in self._run.glob(f"{task.folder}.attempt-*"):
            await in_thread(partial(shutil.rmtree, handed_disks_of(old), ignore_errors=True))
        folder = self._of(task.id)
        folder.mkdir()
        names = [f"{HANDED_DISK}{number}" for number in range(wanted.count)]
        if wanted.copy_of is None:
            for name in names:
                handeddisks.make_empty(folder / name, wanted.size << 20)
            return [Disk(serial=name, path=str(folder / name)) for name in names]
        given = [str(self._of(wanted.copy_of) / name) for name in names]
        await handeddisks.copy(
            given,
            folder,
            fact=f"cannot copy the disks of {wanted.copy_of}",
            next_step="`quizmatrix clean` gives disk space back; --output puts the run elsewhere.",
        )
        return [
            Disk(serial=name, path=str(folder / name), origin=origin)
            for name, origin in zip(names, given, strict=True)
        ]

    def are_read_later(self, task: Task) -> bool:
        """Whether other tasks wait for what this one's guest leaves on its disks."""
        return bool(self._waited_for[task.id])

    def note_end(self, task: Task, result: CellResult) -> CellResult:
        """Note the end of a task. Returns its result; that of a failed task names the disks that are kept.

        Kept are the disks in the state in which the task got them. Disks that no task needs any more are
        removed by `remove_unneeded`.
        """
        if task.disks is None:
            return result
        if result.outcome is not Outcome.PASSED or not self._waited_for[task.id]:
            self._unneeded.append(task.id)
        source = task.disks.copy_of
        if source is None:
            return result
        if result.outcome not in _SAYS_NOTHING:
            self._kept.add(source)
            kept = self._of(source).relative_to(self._run)
            labels = msgspec.structs.replace(result.labels, kept=str(kept)) if result.labels else None
            result = msgspec.structs.replace(result, labels=labels)
        waiting = self._waited_for[source]
        waiting.discard(task.id)
        if not waiting:
            self._unneeded.append(source)
        return result

    async def remove_unneeded(self) -> None:
        """Remove the disks that no task needs any more; in a thread, since large disks take time."""
        while self._unneeded:
            task = self._unneeded.pop()
            await in_thread(partial(self._remove, task))

    def clear(self) -> None:
        """Remove all disks but those that are kept; also after a run that was cut short."""
        for task in self._tasks.values():
            if task.disks is not None:
                self._remove(task.id)
                for old in self._run.glob(f"{task.folder}.attempt-*"):
                    shutil.rmtree(handed_disks_of(old), ignore_errors=True)

    def _of(self, task: str) -> Path:
        return handed_disks_of(self._run / self._tasks[task].folder)

    def _remove(self, task: str) -> None:
        if task not in self._kept:
            shutil.rmtree(self._of(task), ignore_errors=True)
