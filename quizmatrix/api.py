"""The library: the steps of a run as functions, for Python programs. docs/api.md describes its names."""

from quizmatrix.core.errors import (
    DamagedError,
    DataError,
    HostError,
    QuizmatrixError,
    UnpreparedError,
    UsageError,
)
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import Cell, expand
from quizmatrix.model.matrix import Matrix, find_matrix, load_matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.spec import Bind, CellSpec
from quizmatrix.model.task import Task
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import GuestPlan, Prepared, specify
from quizmatrix.run.cell import run_cell
from quizmatrix.run.observer import Observer
from quizmatrix.runs.directory import find_run
from quizmatrix.runs.directory import load as load_run

__all__ = [
    "Accelerator",
    "Bind",
    "Cell",
    "CellResult",
    "CellSpec",
    "DamagedError",
    "DataError",
    "GuestPlan",
    "HostError",
    "Matrix",
    "Observer",
    "Outcome",
    "Policy",
    "Prepared",
    "Preparer",
    "QuizmatrixError",
    "RunResults",
    "Task",
    "UnpreparedError",
    "UsageError",
    "expand",
    "find_matrix",
    "find_run",
    "load_matrix",
    "load_run",
    "run_cell",
    "specify",
]
