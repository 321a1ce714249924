"""The plan of a run: its tasks, their order, and their limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from quizmatrix.core.errors import QuizmatrixError, UsageError
from quizmatrix.core.version import KernelVersion, leading_version
from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.spec import CommandLine, Session
from quizmatrix.model.task import Task
from quizmatrix.prepare.specify import GuestPlan
from quizmatrix.run.observer import TerminalHost

# Makes a terminal session. Argument: whether the image has an SSH server.
MakeSession = Callable[[bool], tuple[Session, TerminalHost]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of a run, and how they are run: one field for each decision.

    jobs: the largest number of VMs at a time. max_time: seconds for the whole run; then running tasks are
    stopped, and the others skipped. spent: seconds of max_time that passed before the run began. retries:
    further attempts at a task without a verdict. reruns: of the tests that failed. fail_fast: stop at the
    first task that is not as expected. accelerator: the user's choice; None: a trial boot decides. guest:
    the settings of every guest. session: makes a terminal session after the command of the only task.
    repeat: makes the command line that repeats a task. unbuilt: why something could not be built for a
    cell, by its id without the slice. matrix: the file with [handoff]. expected: seconds that tasks will
    probably take, by id, where known. first: the ids of tasks to start first. test_seconds: how long
    tests took before, by architecture and name; by these, slices are dealt.
    """

    tasks: list[Task]
    jobs: int | None = None
    max_time: float | None = None
    spent: float = 0.0
    retries: int = 0
    reruns: int = 0
    fail_fast: bool = False
    accelerator: Accelerator | None = None
    guest: GuestPlan = GuestPlan()
    session: MakeSession | None = None
    repeat: Callable[[Task], CommandLine] | None = None
    unbuilt: dict[str, QuizmatrixError] = {}
    matrix: str | None = None
    expected: dict[str, float] = {}
    first: frozenset[str] = frozenset()
    test_seconds: dict[str, dict[str, float]] = {}


def longest_first(
    tasks: list[Task], seconds: dict[str, float] | None = None, first: frozenset[str] = frozenset()
) -> list[Task]:
    """The tasks in the order to start them: long ones first, so that none runs alone at the end.

    first: the ids of tasks to start before all others. seconds: how long tasks took before, by id. Tasks
    whose time is unknown come before the others; they are ordered by time limit, then by kernel version
    (newer kernels boot longer), then by the architecture's timeout factor.
    """
    known = seconds or {}

    def expected(task: Task) -> tuple[bool, bool, float, float, bool, KernelVersion, float]:
        cell = task.cell
        version = leading_version(cell.kernel.rpartition(":")[2])
        factor = load_arch(cell.arch).facts.timeout_factor.tcg
        rule = cell.timeout, version is None, version or KernelVersion("0.0"), factor
        return task.id in first, task.id not in known, known.get(task.id, 0.0), *rule

    return sorted(tasks, key=expected, reverse=True)


def check_layers(layers: list[Path]) -> list[Path]:
    """The absolute paths of the folders. Raises UsageError where one is no folder."""
    for layer in layers:
        if not layer.is_dir():
            raise UsageError(
                f"the layer {layer} is not a folder",
                next_step="A layer is a host folder laid out like the guest's root.",
            )
    return [layer.absolute() for layer in layers]
