"""OpenZFS, built and tested on both byte orders, with the command line only.

One of the two kernels is Debian's own, the other is built here: other tests use it, too.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quizmatrix.core import paths
from quizmatrix.model.matrix import find_matrix
from tests.openzfs import source_tree
from tests.vm.conftest import Quizmatrix

CELLS = ("debian-source:6.1-x86_64", "6.1-s390x")
ONLY = ("--only", ",".join(CELLS))

EDITED = "module/os/linux/zfs/zfs_ioctl_os.c"

# Seconds; two cores need a quarter of an hour for two OpenZFS from nothing, a busy host more.
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
    assert rows == [[cell, "reused", "reused"] for cell in sorted(CELLS)]


def test_the_smoke_suite_passes(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # The command says by itself that it needs the profiles.
    done = quizmatrix("run", *ONLY, "--output", str(folder), "--", "zfs-smoke")
    cells = run_directory(done, folder)
    # Tests that cannot pass on big-endian are known, and count as skipped.
    found = {cell["arch"]: cell["subtests"] for cell in cells.values()}
    assert found == {"x86_64": {"passed": 44}, "s390x": {"passed": 43, "skipped": 1}}


def test_its_own_suite_in_its_tree(quizmatrix: Quizmatrix, tree: Path, tmp_path: Path) -> None:
    """Typed literally: the image, the profiles, the memory and the build come from the command itself."""
    folder = tmp_path / "run"
    cells = ("--only", f"{CELLS[0]},6.1-ppc64", "--output", str(folder))
    test = "cli_root/zfs_create/zfs_create_001_pos"
    done = quizmatrix("run", *cells, "--", "zfs-tests.sh", "-t", f"tests/functional/{test}", cwd=tree)
    said = done.stderr.decode()
    assert "zfs-tests.sh: profiles zfs, ztest, memdev; image debian+zfs-tests; 4 GiB, 2 CPUs" in said
    found = run_directory(done, folder)
    suite, skipped = found[CELLS[0]], found["6.1-ppc64"]
    assert suite["subtests"] == {"passed": 3}, done.stdout.decode()
    assert (suite["profiles"], skipped["outcome"]) == (["zfs", "ztest", "memdev"], "skipped")


def test_disks_are_handed_from_one_byte_order_to_the_other(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    folder, matrix = tmp_path / "run", tmp_path / "handoff.toml"
    shipped = find_matrix("handoff").read_text()
    kernels = [
        f'{{ kernel = "{cell.rpartition("-")[0]}", arch = "{cell.rpartition("-")[2]}" }}' for cell in CELLS
    ]
    matrix.write_text(
        f"include = [{', '.join(kernels)}]\n" + re.sub(r"(?m)^(kernels|arches) .*", r"\1 = []", shipped)
    )
    # A few sets of features: all of them take minutes.
    features = "HANDOFF_FEATURES=lz4 sha256 record-1M encryption special files names log"
    done = quizmatrix("run", str(matrix), "--env", features, "--output", str(folder))
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
    options = ("run", "--build", "--only", CELLS[0], "-p", "zfs")
    argv = (*options, "--", "dmesg | grep -c edited")
    # --max-time includes the build: it is interrupted, and the next run continues it.
    done = quizmatrix(*options, "--max-time", "1s", *argv[-2:], cwd=edited.parent)
    assert done.returncode == 125
    assert b"the run's time of 1.00s was over before it had started" in done.stderr
    done = quizmatrix("zfs", "build", *options[2:4], "-q", cwd=edited.parent)
    assert done.stdout.decode().splitlines()[-1].split()[1::2] == ["built", "built"]
    done = quizmatrix(*argv, cwd=edited.parent)
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr.decode()
    # If it does not compile, nothing is run with the earlier build.
    edited.write_text(f"{text}\n#error this is wrong\n")
    done = quizmatrix(*argv, cwd=edited.parent)
    assert done.returncode == 125
    assert b"error: #error this is wrong" in done.stderr
    assert b"dmesg" not in done.stdout


def test_a_kernel_without_it_says_what_to_type(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in paths.cache_dir().iterdir():
        if path.name != "build-layers":
            (cache / path.name).symlink_to(path)
    own = environment | {"QUIZMATRIX_CACHE_DIR": str(cache)}
    done = quizmatrix("run", "--only", CELLS[0], "-p", "zfs", "--", "true", env=own)
    assert done.returncode == 125
    assert b"the profile zfs needs the module zfs" in done.stderr
    assert f"quizmatrix zfs build --only {CELLS[0]}".encode() in done.stderr
