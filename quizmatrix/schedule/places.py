"""Where jobs run: on this host, or elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from quizmatrix.model.job import CellJob
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, Disk
from quizmatrix.run import headstart
from quizmatrix.run.job import FindOut, RunCell, run_job
from quizmatrix.run.observer import Observer
from quizmatrix.schedule.admission import Admission, Need


class JobPlace(Protocol):
    """Runs jobs."""

    def room(
        self, need: Need, tell: Callable[[str], None], *, is_further: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Room for one guest. Arguments and errors: those of Admission.enter."""

    async def run(
        self, job: CellJob, folder: Path, disks: Sequence[Disk], observer: Observer, *, hands_on: bool = False
    ) -> tuple[CellSpec, CellResult]:
        """Make one attempt at a job. hands_on: other cells will read what the guest leaves on `disks`.

        The other arguments, and errors: those of run_job.
        """


class Here:
    """This host."""

    def __init__(self, admission: Admission, find_out: FindOut, run_cell: RunCell) -> None:
        """find_out: finds a guest's accelerator. run_cell: runs a specification and returns its result."""
        self._admission = admission
        self._find_out = find_out
        self._run_cell = run_cell

    @asynccontextmanager
    async def room(
        self, need: Need, tell: Callable[[str], None], *, is_further: bool = False
    ) -> AsyncIterator[None]:
        """See JobPlace."""

        def waits(why: str) -> None:
            # That may take hours, and a QEMU that nobody has asked for yet takes memory.
            headstart.drop()
            tell(why)

        await self._admission.enter(need, waits, is_further=is_further)
        try:
            yield
        finally:
            self._admission.leave(need)

    async def run(
        self, job: CellJob, folder: Path, disks: Sequence[Disk], observer: Observer, *, hands_on: bool = False
    ) -> tuple[CellSpec, CellResult]:
        """See JobPlace. The disks are in the cell's folder, where readers find them in any case."""
        return await run_job(
            job,
            folder=folder,
            disks=disks,
            observer=observer,
            find_out=self._find_out,
            run=self._run_cell,
        )
