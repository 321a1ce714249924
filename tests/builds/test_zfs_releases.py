"""Every release of OpenZFS that a Debian has, on the kernels that it supports (`make check-all`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.openzfs import RELEASES, source_tree

# Seconds; two builds and two emulated guests of each release.
LIMIT = 2 * 3600

pytestmark = pytest.mark.timeout(LIMIT)

# What each supports of the kernels of `endian` (5.10 for s390x is built here), and one of ppc64; and one
# that it does not know.
OLDER = ["5.10-x86_64", "5.10-s390x", "6.1-x86_64", "6.1-s390x"]
NEWER = [*OLDER, "6.12-x86_64", "6.12-s390x", "debian-source:6.12-ppc64"]
CELLS = {"2.1": (OLDER, "6.12-x86_64"), "2.3": (NEWER, None), "2.4": (NEWER, None)}


def quizmatrix(*words: str, tree: Path, state: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "quizmatrix", *words]
    env = {"QUIZMATRIX_STATE_DIR": str(state)}
    return subprocess.run(argv, cwd=tree, env=os.environ | env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("release", RELEASES)
def test_the_smoke_suite_passes_with_each_release(release: str, tmp_path: Path) -> None:
    tree = source_tree(tmp_path / "source", release)
    cells, unknown = CELLS[release]
    if unknown is not None:
        done = quizmatrix("zfs", "build", "--only", unknown, tree=tree, state=tmp_path)
        assert done.returncode == 125
        assert "does not know kernel 6.12" in done.stderr
        assert "configuring" not in done.stderr
    done = quizmatrix("zfs", "build", "--only", ",".join(cells), tree=tree, state=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    words = ["--only", ",".join(cells), "-p", "zfs,memdev", "--output", str(tmp_path / "run")]
    done = quizmatrix("run", *words, "--", "zfs-smoke", tree=tree, state=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for cell in json.loads((tmp_path / "run/results.json").read_bytes())["cells"]:
        # Features that the release lacks count as skipped.
        assert cell["subtests"]["passed"] >= 40, cell
        assert cell["built_from"]["tree"] == str(tree)
        said = (tmp_path / "run" / cell["cell"] / "stdout").read_text()
        assert f"# OpenZFS {release}." in said
