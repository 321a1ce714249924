"""The profiles of other people's suites, in guests, with toys that print what the suites do."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from tests.vm.conftest import Quizmatrix

TOYS = Path(__file__).parents[1] / "toy-suites"
CELLS = "6.1-x86_64,6.1-s390x"
# Without the packages that the real suites want: they would be installed for minutes, for s390x in a guest.
PLAIN_IMAGE = ("--image", "debian", "--no-provide")


def outcomes_of(folder: Path) -> dict[str, str]:
    return {test["name"]: test["outcome"] for test in json.loads((folder / "subtests.json").read_bytes())}


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_bytes())
    return found


def test_xfstests(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """In its folder: a crash loses one test, what failed runs again, and one test depends on the machine."""
    here, run = tmp_path / "here", tmp_path / "run"
    shutil.copytree(TOYS / "xfstests", here, dirs_exist_ok=True)
    (here / "state").mkdir()
    options = ["--only", CELLS, *PLAIN_IMAGE, "-p", "xfstests", "--bind", f"{here}/state:/state"]
    options += ["--rerun-failed", "1", "--output", str(run)]
    done = quizmatrix("run", *options, "--", "xfstests", "-g", "quick")
    assert done.returncode == 1, done.stderr.decode()
    assert b"generic/002" in done.stdout
    for cell in CELLS.split(","):
        folder = run / cell
        result = result_of(folder)
        assert result["outcome"] == "panicked"
        assert "while generic/003 ran" in result["detail"]
        assert result["further"] == ["rest-1", "rerun-1"]
        assert outcomes_of(folder) == {
            "generic/001": "passed",
            "generic/002": "failed" if "s390x" in cell else "passed",
            "generic/003": "passed",
            "generic/004": "skipped",
            "generic/005": "passed",
        }
        assert (folder / "rest-1/artifacts/xfstests/generic/005.out.bad").exists()


def test_blktests_and_ltp(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    run, matrix = tmp_path / "run", tmp_path / "suites.toml"
    both = 'kernels = ["6.1"]\narches = ["x86_64", "s390x"]\n'
    # It writes into its folder, which is read-only in the guest.
    matrix.write_text(f'{both}[suite]\nblktests = "path:{TOYS / "blktests"}"\n')
    options = [*PLAIN_IMAGE, "-p", "blktests", "--output", str(run)]
    done = quizmatrix("run", str(matrix), *options, "--", "blktests")
    assert done.returncode == 1, done.stderr.decode()
    for cell in CELLS.split(","):
        assert outcomes_of(run / cell) == {
            "block/001 (quizb0)": "passed",
            "block/001 (quizb1)": "passed",
            "block/002 (quizb0)": "passed",
            "block/002 (quizb1)": "failed",
        }
    # In slices, of the small image: what it needs is in every image. Each architecture has its own.
    run = tmp_path / "ltp"
    for arch in ("x86_64", "s390x"):
        shutil.copytree(TOYS / "ltp/opt/ltp", tmp_path / "built" / arch)
    places = 'x86_64 = "path:built/x86_64"\ns390x = "path:built/s390x"\n'
    matrix.write_text(f'{both}image = "small"\n[suite.ltp]\n{places}')
    options = ["--output", str(run), "--shard", "2"]
    done = quizmatrix("run", str(matrix), *options, "--", "ltp")
    assert done.returncode == 1, done.stderr.decode()
    for cell in CELLS.split(","):
        slices = [outcomes_of(run / f"{cell}@{number}of2") for number in (1, 2)]
        assert all(slices)
        assert {**slices[0], **slices[1]} == {
            "good01": "passed",
            "bad01": "failed",
            "conf01": "skipped",
            "sig01": "failed",
        }
    printed = b"".join(path.read_bytes() for path in run.glob("*/stdout"))
    assert b"bad 1 TFAIL: 2 arguments, two  words" in printed
    # Time limits are longer in an emulated guest.
    assert re.search(rb"good 1 TPASS: /opt/ltp, [1-9]\d*\n", printed)
    done = quizmatrix("run", str(matrix), "--only", "6.1-x86_64", "--", "ltp", "none01")
    assert done.returncode == 2
    assert b"ltp: there is no test none01" in done.stderr
