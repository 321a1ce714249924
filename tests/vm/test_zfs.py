"""OpenZFS, built and tested on both byte orders, with the command line only."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openzfs import source_tree
from tests.vm.conftest import Quizmatrix

CELLS = ("6.1-x86_64", "6.1-s390x")
ONLY = ("endian", "--only", ",".join(CELLS))

EDITED = "module/os/linux/zfs/zfs_ioctl_os.c"

# Seconds; two cores need half an hour for two kernels and two OpenZFS from nothing.
LIMIT = 4200

pytestmark = pytest.mark.timeout(LIMIT)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source. It is kept in the user's cache, where a test that was killed may have left its edit."""
    place = source_tree(tmp_path_factory.mktemp("source"))
    kept = place.with_name("before-the-edit")
    if kept.exists():
        (place / EDITED).write_bytes(kept.read_bytes())
        kept.unlink()
    return place


@pytest.fixture(scope="module", autouse=True)
def built(tree: Path) -> None:
    """OpenZFS, built where this user's cache lacks it."""
    subprocess.run([sys.executable, "-m", "quizmatrix", "zfs", "build", *ONLY], cwd=tree, check=True)


@pytest.fixture
def edited(tree: Path) -> Iterator[Path]:
    """A source file of the module. The test restores its content, with a new mtime, so that make sees it."""
    path, kept = tree / EDITED, tree.with_name("before-the-edit")
    text = path.read_bytes()
    kept.write_bytes(text)
    yield path
    path.write_bytes(text)
    kept.unlink()


def run_directory(done: subprocess.CompletedProcess[bytes], folder: Path) -> dict[str, dict[str, object]]:
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return {cell["cell"]: cell for cell in json.loads((folder / "results.json").read_bytes())["cells"]}


def test_what_is_built_is_not_built_again(quizmatrix: Quizmatrix, tree: Path) -> None:
    done = quizmatrix("zfs", "build", *ONLY, "-q", cwd=tree)
    rows = [line.split() for line in done.stdout.decode().splitlines()[2:]]
    assert rows == [[cell, "reused", "reused"] for cell in CELLS]


def test_the_smoke_suite_passes(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = quizmatrix("run", *ONLY, "-p", "zfs,memdev", "--output", str(folder), "--", "zfs-smoke")
    cells = run_directory(done, folder)
    # Tests that cannot pass on big-endian are known, and count as skipped.
    assert [cell["subtests"] for cell in cells.values()] == [{"passed": 44}, {"passed": 43, "skipped": 1}]


def test_disks_are_handed_from_one_byte_order_to_the_other(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # A few sets of features: all of them take minutes.
    features = "HANDOFF_FEATURES=lz4 sha256 record-1M encryption special files names log"
    argv = ("run", "handoff", "--only", ",".join(CELLS), "--env", features)
    done = quizmatrix(*argv, "--output", str(folder))
    cells = run_directory(done, folder)
    there = [f"{writer}..{reader}" for writer in CELLS for reader in CELLS]
    home = [f"{writer}..{reader}..{writer}" for writer in CELLS for reader in CELLS]
    assert set(cells) == {*CELLS, *there, *home}
    for cell in cells.values():
        assert set(cell["subtests"]) == {"passed"}, cell  # type: ignore[call-overload]


def test_an_edit_is_built_and_seen(quizmatrix: Quizmatrix, edited: Path) -> None:
    text = edited.read_text()
    marked = text.replace('"ZFS: Loaded module', '"ZFS: Loaded edited module')
    assert marked != text
    edited.write_text(marked)
    options = ("run", "--build", *ONLY[:1], "--only", CELLS[0], "-p", "zfs")
    argv = (*options, "--", "dmesg | grep -c edited")
    # --max-time includes the build: it is interrupted, and the next run continues it.
    done = quizmatrix(*options, "--max-time", "1s", *argv[-2:], cwd=edited.parent)
    assert done.returncode == 125
    assert b"the run's time of 1.00s was over before it had started" in done.stderr
    done = quizmatrix("zfs", "build", *options[2:5], "-q", cwd=edited.parent)
    assert done.stdout.decode().splitlines()[-1].split()[1::2] == ["built", "built"]
    done = quizmatrix(*argv, cwd=edited.parent)
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr.decode()
    # If it does not compile, nothing is run with the earlier build.
    edited.write_text(f"{text}\n#error this is wrong\n")
    done = quizmatrix(*argv, cwd=edited.parent)
    assert done.returncode == 125
    assert b"error: #error this is wrong" in done.stderr
    assert b"dmesg" not in done.stdout


def test_a_kernel_without_it_says_what_to_type(quizmatrix: Quizmatrix) -> None:
    done = quizmatrix("run", "--only", "debian:6.1-x86_64", "-p", "zfs", "--", "true")
    assert done.returncode == 125
    assert b"the profile zfs needs the module zfs" in done.stderr
