"""The disks that go from cell to cell: made, copied for each who reads them, and removed behind the last.

They lie in the folder of the task whose guest has them, below `disks/`. A guest never has another's
disks: each gets a copy of its own, which shares its blocks where the file system can (cp's --reflink).
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import process
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import HostError
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import HANDED_DISK, Disk
from quizmatrix.model.task import Task

_FOLDER = "disks"

# How tasks end that say nothing of the disks they were given.
_SAYS_NOTHING = frozenset({Outcome.PASSED, Outcome.UNPREPARED, Outcome.CANCELLED, Outcome.SKIPPED})


class Shelf:
    """The disks of a run's tasks."""

    def __init__(self, run: Path, tasks: list[Task]) -> None:
        """run: its directory."""
        self._run = run
        self._tasks = {task.id: task for task in tasks}
        self._waited_for: dict[str, set[str]] = {task.id: set() for task in tasks}
        for task in tasks:
            if task.after is not None:
                self._waited_for[task.after].add(task.id)
        self._kept: set[str] = set()
        self._unneeded: list[str] = []

    async def provide(self, task: Task) -> list[Disk]:
        """The disks for an attempt at a task, whose folder is there; HostError where they cannot be made."""
        wanted = task.disks
        if wanted is None:
            return []
        # Those of an attempt that came to nothing are worth nothing.
        for old in self._run.glob(f"{task.folder}.attempt-*/{_FOLDER}"):
            await in_thread(partial(shutil.rmtree, old, ignore_errors=True))
        folder = self._of(task.id)
        folder.mkdir()
        names = [f"{HANDED_DISK}{number}" for number in range(wanted.count)]
        if wanted.after is None:
            for name in names:
                with (folder / name).open("wb") as file:
                    file.truncate(wanted.size << 20)
            return [Disk(serial=name, path=str(folder / name)) for name in names]
        given = [str(self._of(wanted.after) / name) for name in names]
        argv = ["cp", "--reflink=auto", "--sparse=always", "--", *given, str(folder)]
        done = await process.run(argv)
        if done.status != 0:
            raise HostError(
                f"cannot copy the disks of {wanted.after}",
                cause=done.last_words,
                next_step="`quizmatrix clean` gives disk space back; --output puts the run elsewhere.",
            )
        return [
            Disk(serial=name, path=str(folder / name), origin=origin)
            for name, origin in zip(names, given, strict=True)
        ]

    def obstacle(self, before: CellResult) -> str:
        """Why what waited for `before`, which has ended, cannot be done; empty where it can."""
        if before.outcome is Outcome.PASSED or before.handoff is None:
            return ""
        if before.outcome is Outcome.SKIPPED:
            return before.detail
        handed = before.handoff
        if handed.read_on is None:
            return f"{handed.written_on} did not write the disks: {before.outcome}"
        return f"{handed.read_on} did not read the disks of {handed.written_on}: {before.outcome}"

    def settle(self, task: Task, result: CellResult) -> CellResult:
        """Hear how a task ended, and say in the result what is kept: the disks as a failed task got them.

        What nobody needs any more is for `remove_unneeded`.
        """
        if task.disks is None:
            return result
        if result.outcome is not Outcome.PASSED or not self._waited_for[task.id]:
            self._unneeded.append(task.id)
        after = task.disks.after
        if after is None:
            return result
        if result.outcome not in _SAYS_NOTHING:
            self._kept.add(after)
            kept = self._of(after).relative_to(self._run)
            handed = msgspec.structs.replace(result.handoff, kept=str(kept)) if result.handoff else None
            result = msgspec.structs.replace(result, handoff=handed)
        waiting = self._waited_for[after]
        waiting.discard(task.id)
        if not waiting:
            self._unneeded.append(after)
        return result

    async def remove_unneeded(self) -> None:
        """Remove the disks that nobody needs any more. In a thread: of large ones it takes its time."""
        while self._unneeded:
            task = self._unneeded.pop()
            await in_thread(partial(self._remove, task))

    def clear(self) -> None:
        """Remove all but what is kept, also where the run was cut short."""
        for task in self._tasks.values():
            if task.disks is not None:
                self._remove(task.id)
                for old in self._run.glob(f"{task.folder}.attempt-*/{_FOLDER}"):
                    shutil.rmtree(old, ignore_errors=True)

    def _of(self, task: str) -> Path:
        return self._run / self._tasks[task].folder / _FOLDER

    def _remove(self, task: str) -> None:
        if task not in self._kept:
            shutil.rmtree(self._of(task), ignore_errors=True)
