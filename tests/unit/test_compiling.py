"""What has to be compiled is said before it begins."""

import shutil
from pathlib import Path

import anyio
import pytest

from quizmatrix.cli import run_command
from quizmatrix.kernel import source
from quizmatrix.kernel.build import builds_dir
from quizmatrix.kernel.order import Order, options_of
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell, cells_on_the_spot, expand
from quizmatrix.model.matrix import Limits, find_matrix, load_matrix
from quizmatrix.prepare import compiling
from quizmatrix.prepare.compiling import Work


def build(cell: Cell) -> None:
    order = Order(arch=load_arch(cell.arch), options=options_of(cell), tell=lambda _said: None)
    anyio.run(source.obtain, cell.kernel_spec, order)


def counts(work: list[Work]) -> list[str]:
    return [one.what for one in work]


@pytest.mark.usefixtures("toy")
def test_from_an_empty_cache() -> None:
    cells = [cell for cell in expand(load_matrix(find_matrix("built")), "built") if cell.arch != "aarch64"]
    assert counts(compiling.for_guests(cells, offline=False)) == ["9 kernels", "busybox for ppc64"]
    assert compiling.for_guests(cells, offline=True) == []
    ready_made = cells_on_the_spot(["6.1-x86_64", "6.12-s390x"], Limits())
    assert compiling.for_guests(ready_made, offline=False) == []


def test_a_kernel_is_counted_until_it_is_built(toy: Path) -> None:
    (cell,) = cells_on_the_spot([f"path:{toy}-x86_64"], Limits())
    assert counts(compiling.kernels([cell, cell])) == ["a kernel"]
    build(cell)
    assert compiling.kernels([cell]) == []
    # A tree that was built before and has changed is compiled in part.
    (toy / "Makefile").touch()
    assert compiling.kernels([cell]) == []


def test_a_kernel_whose_build_tree_is_gone_is_counted_where_that_is_needed(toy: Path) -> None:
    (cell,) = cells_on_the_spot([f"path:{toy}-x86_64"], Limits())
    build(cell)
    assert compiling.kernels([cell], needs_tree=True) == []
    shutil.rmtree(builds_dir())
    assert counts(compiling.kernels([cell], needs_tree=True)) == ["a kernel"]
    assert compiling.kernels([cell]) == []


@pytest.mark.parametrize(
    ("work", "cpus", "said"),
    [
        ([], 2, None),
        ([("a kernel", 330)], 2, "to compile first: a kernel (about 3 min on 2 CPUs)"),
        ([("a kernel", 330)], 1, "to compile first: a kernel (about 6 min on 1 CPU)"),
        ([("busybox for ppc64", 33)], 64, "to compile first: busybox for ppc64 (about 10 s on 64 CPUs)"),
        (
            [("30 kernels", 9900), ("OpenZFS for 30 kernels", 4200)],
            2,
            "to compile first: 30 kernels (about 1 h 30 min on 2 CPUs), "
            "OpenZFS for 30 kernels (about 35 min)",
        ),
        ([("44 kernels", 14400)], 2, "to compile first: 44 kernels (about 2 h on 2 CPUs)"),
    ],
)
def test_the_sentence(work: list[tuple[str, float]], cpus: int, said: str | None) -> None:
    assert compiling.sentence([Work(what=what, seconds=cost) for what, cost in work], cpus) == said


@pytest.mark.parametrize("quiet", [False, True])
def test_prepare_says_it(toy: Path, quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["prepare", "--only", f"path:{toy}-x86_64", *(["--quiet"] if quiet else [])]
    run_command(argv)
    said = capsys.readouterr().out
    assert ("quizmatrix: to compile first: a kernel (about" in said) is not quiet
