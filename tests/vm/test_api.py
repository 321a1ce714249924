"""The library: docs/example.py, and what docs/api.md says beyond it, with real cells."""

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from quizmatrix import api
from tests.vm.conftest import ARCHES, KERNEL

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    """A matrix file with a cell for each architecture."""
    path = tmp_path / "matrix.toml"
    path.write_text(f'kernels = ["{KERNEL}"]\narches = {list(ARCHES)}\n')
    return path


def test_the_example_runs_a_command_in_every_cell(matrix: Path) -> None:
    argv = [sys.executable, str(DOCS / "example.py"), str(matrix), "uname", "-m"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    expected = [f"{KERNEL}-{arch}: passed\n    {arch}\n" for arch in ARCHES]
    assert done.stdout == "".join(expected)


def test_the_example_says_what_is_wrong(matrix: Path) -> None:
    matrix.write_text("kernel = []\n")
    argv = [sys.executable, str(DOCS / "example.py"), str(matrix), "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Did you mean `kernels`?" in done.stderr


def test_cells_run_at_once_and_are_watched(matrix: Path, tmp_path: Path) -> None:
    """Each cell's output arrives as it comes; a work tree and variables reach the guest."""
    (tmp_path / "greeting").write_text("hello")
    said: dict[str, bytes] = {}
    ended: dict[str, api.CellResult] = {}

    async def run_in(cell: api.Cell, preparer: api.Preparer) -> None:
        prepared = await preparer.prepare(cell, lambda _text: None)
        answer = await preparer.accelerator(cell, prepared, None)
        task = api.Task(id=cell.id, cell=cell, command=['echo "$(cat greeting) $WHO"; exit 3'])
        guest = api.GuestPlan(work_tree=str(tmp_path), environment={"WHO": cell.arch})
        folder = tmp_path / "results" / cell.id
        folder.mkdir(parents=True)
        spec = await api.specify(task, prepared, answer.accelerator, folder=folder, asked=guest)

        async def hear(data: bytes) -> None:
            said[cell.arch] = said.get(cell.arch, b"") + data

        result = await api.run_cell(api.CellSpec.decode(spec.encode()), api.Observer(stdout=hear))
        ended[cell.arch] = result

    async def run_all() -> None:
        preparer = api.Preparer(api.Policy(offline=True))
        async with anyio.create_task_group() as group:
            for cell in api.expand(api.load_matrix(matrix), str(matrix)):
                group.start_soon(run_in, cell, preparer)

    anyio.run(run_all)
    assert said == {arch: f"hello {arch}\n".encode() for arch in ARCHES}
    assert {(one.outcome, one.exit_code) for one in ended.values()} == {(api.Outcome.FAILED, 3)}
