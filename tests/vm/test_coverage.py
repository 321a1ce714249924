"""What a guest packs after its command with --coverage; tests/builds has kernels that count."""

import tarfile
from pathlib import Path

import anyio
import msgspec
import pytest

from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import Kept
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import specify
from quizmatrix.run import counters
from quizmatrix.run.cell import run_cell
from tests.vm.conftest import Quizmatrix

CELLS = ("6.1-x86_64", "6.1-s390x")
# Debian's kernels do not count: this is what gcov's folder looks like in one that does.
FOLDER = "/sys/kernel/debug/gcov/build"
COUNTS = (
    f"mount -t tmpfs none /sys/kernel/debug && mkdir -p {FOLDER} && echo counted >{FOLDER}/a.gcda"
    f" && ln -s /build/a.gcno {FOLDER}/a.gcno; exit 3"
)


def packing(cell_id: str, command: str, folder: Path) -> CellResult:
    """Run a command in a cell whose guest packs its counters, though its kernel has none."""
    (cell,) = cells_on_the_spot([cell_id], Limits())

    async def run() -> CellResult:
        prepared = await Preparer(Policy(offline=True)).prepare(cell, lambda _text: None)
        (task,) = in_each([cell], [command])
        made = await specify(task, prepared, Accelerator.TCG, folder=folder)
        return await run_cell(msgspec.structs.replace(made, keeps=Kept(counters=True)))

    return anyio.run(run)


@pytest.mark.parametrize("cell", CELLS)
def test_counters_come_to_the_cells_folder(cell: str, tmp_path: Path) -> None:
    result = packing(cell, COUNTS, tmp_path)
    assert (result.outcome, result.exit_code, result.detail) == (Outcome.FAILED, 3, "")
    assert (tmp_path / "stderr").read_bytes() == b""
    with tarfile.open(tmp_path / counters.COUNTERS) as archive:
        member = archive.extractfile("./build/a.gcda")
        assert member is not None
        assert member.read() == b"counted\n"
    found = counters.load(tmp_path)
    assert found is not None
    assert found.kernel
    assert not any((tmp_path / "artifacts").iterdir())


def test_a_guest_without_counters_says_so_and_its_command_counts(tmp_path: Path) -> None:
    result = packing(CELLS[0], "exit 3", tmp_path)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 3)
    assert (
        (tmp_path / "stderr").read_bytes().endswith(b"quizmatrix: the counters of lines could not be kept\n")
    )
    assert counters.load(tmp_path) is None


def test_a_kernel_that_counts_nothing_is_told_before_it_boots(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    page = tmp_path / "page"
    done = quizmatrix("run", "--only", CELLS[0], "--coverage", str(page), "--", "true")
    assert done.returncode == 125
    assert b"does not count which lines run" in done.stderr
    assert b"--only debian-source:6.1-x86_64+gcov" in done.stderr
    assert not page.exists()
