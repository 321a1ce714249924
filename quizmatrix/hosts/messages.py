"""What the submitter of a run and its workers tell each other, as JSON."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from quizmatrix.core import json
from quizmatrix.core.errors import DamagedError, HostError, NotFetchedError, QuizmatrixError
from quizmatrix.kernel.order import KernelOptions
from quizmatrix.model.job import CellJob
from quizmatrix.model.result import CellResult, HostFacts
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.stage import Stage

T = TypeVar("T")


class SentDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that is handed from cell to cell.

    serial: see spec.Disk. size: in bytes. content: the name of its listing; empty for a new disk. place: the
    name of the file with the content on the worker's host, once it was fetched.
    """

    serial: str
    size: int
    content: str = ""
    place: str = ""


class CellOrder(msgspec.Struct, frozen=True, kw_only=True, tag="cell"):
    """A job for a worker.

    travels: by the name or the path of each file and folder that the job is run from, the name of its
    listing. home: the address of the submitter's blobs and results, with the secret of the run. store: the
    URL of a store with blobs that all hosts reach; empty if there is none. topic: of the events. passes_on:
    whether the command's output is wanted as it comes. disks: those that cells hand on. hands_on: they come
    home with the results.
    """

    job: CellJob
    travels: dict[str, str]
    home: str
    topic: str
    store: str = ""
    passes_on: bool = False
    disks: list[SentDisk] = []
    hands_on: bool = False

    @property
    def what(self) -> str:
        """What it is, for a message."""
        return self.job.labels.cell

    @property
    def arch(self) -> str:
        """The architecture of its guest."""
        return self.job.machine.arch


class KernelOrder(msgspec.Struct, frozen=True, kw_only=True, tag="kernel"):
    """A kernel for a worker to build.

    kernel: its name in full. arch: the architecture's name. recipe: what it is made by, as the submitter has
    it. home, topic: see CellOrder. cpus: as many compilers run at a time; the worker says.
    """

    kernel: str
    arch: str
    options: KernelOptions
    recipe: str
    home: str
    topic: str
    cpus: int | None = None

    @property
    def what(self) -> str:
        """What it is, for a message."""
        return f"{self.kernel}-{self.arch}"


HostOrder: TypeAlias = CellOrder | KernelOrder


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """How an order ended: with a result, or with an error.

    worker: its address, as dask has it. kernel: the key of the one that was built. upload: the name under
    which it has sent the folder of the cell, or of the kernel, home.
    error, next_step: of a QuizmatrixError. may_work_elsewhere: another host may do better. is_hosts_fault:
    and this one will probably fail with the next order, too.
    """

    host: HostFacts
    worker: str = ""
    spec: CellSpec | None = None
    result: CellResult | None = None
    kernel: str = ""
    upload: str = ""
    error: str = ""
    next_step: str = ""
    may_work_elsewhere: bool = False
    is_hosts_fault: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the order was carried out."""
        return self.result is not None or bool(self.kernel)


def answered_with(host: HostFacts, error: QuizmatrixError) -> Answered:
    """The answer of a host where an error occurred."""
    # What could not be fetched from the submitter may be the submitter's fault.
    may_work = isinstance(error, HostError | NotFetchedError)
    is_hosts_fault = isinstance(error, HostError)
    return Answered(
        host=host,
        error=str(error),
        next_step=error.next_step,
        may_work_elsewhere=may_work,
        is_hosts_fault=is_hosts_fault,
    )


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of a job while it runs: one of these.

    stdout, stderr: base64, as JSON has no bytes; `at` is how many bytes of the stream came before.
    """

    host: str | None = None
    specified: CellSpec | None = None
    why: str = ""
    stage: Stage | None = None
    note: str | None = None
    console: str | None = None
    stdout: bytes | None = None
    stderr: bytes | None = None
    at: int = 0


def encoded(value: HostOrder | Answered | Told) -> bytes:
    """JSON on one line from which `decoded` makes an equal value."""
    return json.encode_exactly(value)


def decoded_order(data: bytes) -> HostOrder:
    """Read the output of `encoded` for an order. Raises DamagedError for anything else."""
    order: HostOrder = decoded(data, HostOrder)  # type: ignore[arg-type]
    return order


def decoded(data: bytes, kind: type[T]) -> T:
    """Read the output of `encoded`. Raises DamagedError for anything else."""
    try:
        return json.decode_exactly(data, kind)
    except ValueError as error:
        raise DamagedError(
            f"what another host says is no {getattr(kind, '__name__', 'order')}",
            cause=str(error),
            next_step="Install the same quizmatrix on all hosts.",
        ) from error
