"""OpenZFS in the cells of `endian` and of `built`, and its own suite on Debian images (`make check-all`)."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quizmatrix.model.cellid import folder_name
from tests.openzfs import source_tree

# Another name for an existing suite, so that these images do not replace those of the user.
SUITE = "openzfs"
ARCHIVE = """
[suite.openzfs]
name    = "bookworm"
mirrors = ["http://deb.debian.org/debian"]
arches  = ["amd64", "s390x"]
"""
DEBIAN = ("--only", "6.1-x86_64,6.1-s390x", "--image", f"debian:{SUITE}", "--memory", "2G")
# Not zpool_create_001_pos, which makes dRAIDs and so fails on big-endian.
TEST = "tests/functional/cli_root/zfs_create/zfs_create_001_pos"

# Seconds; of nine kernels, the images and fourteen OpenZFS, emulated and on two cores.
LIMIT = 4 * 3600

pytestmark = pytest.mark.timeout(LIMIT)

Sweep = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(scope="module", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> None:
    """OpenZFS for every cell."""
    tree = source_tree(tmp_path_factory.mktemp("source"))
    for matrix in ("endian", "handoff", "built"):
        subprocess.run([sys.executable, "-m", "quizmatrix", "zfs", "build", matrix], cwd=tree, check=True)


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images with what the test suite runs."""
    (tmp_path / "debian.toml").write_text(ARCHIVE)
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))
    argv = ["image", "build", "-a", "x86_64,s390x", "--suite", SUITE, "--include", "zfs-tests"]
    subprocess.run([sys.executable, "-m", "quizmatrix", *argv], check=True)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Runs a command line that has to pass; its cells by their ids."""
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "state"))

    def run(*argv: str) -> dict[str, dict[str, Any]]:
        words = [sys.executable, "-m", "quizmatrix", "run", "--output", str(tmp_path / "run"), *argv]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads((tmp_path / "run/results.json").read_bytes())
        return {cell["cell"]: cell for cell in results["cells"]}

    return run


@pytest.mark.parametrize("matrix", ["endian", "built"])
def test_the_smoke_suite_passes_in_nine_cells(matrix: str, sweep: Sweep) -> None:
    cells = sweep(matrix, "-p", "zfs,memdev", "--", "zfs-smoke")
    assert len(cells) == 9
    for cell in cells.values():
        # Tests that cannot pass on big-endian are known, and count as skipped.
        known = {} if cell["arch"] == "x86_64" else {"skipped": 1}
        assert cell["subtests"] == {"passed": 44 - len(known), **known}


def test_disks_are_handed_between_three_architectures(sweep: Sweep) -> None:
    cells = sweep("handoff")
    assert [sum(cell.count("..") == steps for cell in cells) for steps in (0, 1, 2)] == [3, 9, 9]
    assert {cell["outcome"] for cell in cells.values()} == {"passed"}


@pytest.mark.usefixtures("debian")
def test_a_test_of_its_own_suite(sweep: Sweep, tmp_path: Path) -> None:
    cells = sweep("endian", *DEBIAN, "-p", "zfs,ztest,memdev", "--", "zfs-tests.sh", "-t", TEST)
    assert len(cells) == 2
    for cell in cells.values():
        assert cell["subtests"]["passed"] >= 1
        folder = tmp_path / "run" / folder_name(cell["cell"])
        names = [test["name"] for test in json.loads((folder / "subtests.json").read_bytes())]
        assert TEST.removeprefix("tests/") in names
        assert any((folder / "artifacts").rglob("log")), "the tests' logs are kept"


@pytest.mark.usefixtures("debian")
def test_what_no_test_ran_in_has_failed(sweep: Sweep) -> None:
    with pytest.raises(AssertionError, match="no test ran"):
        sweep("endian", *DEBIAN, "-p", "zfs,ztest,memdev", "--", "zfs-tests.sh", "-T", "no-such-tag")
