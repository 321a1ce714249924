"""The kernel's own selftests, compiled for and run in kernels that are built here (`make check-all`)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Seconds; of two kernels, two images, and two emulated guests.
LIMIT = 2 * 3600

CELLS = ("debian-source:6.1-x86_64", "debian-source:6.1-s390x")

pytestmark = pytest.mark.timeout(LIMIT)


def kselftest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["run", "--only", ",".join(CELLS), "--output", str(folder), "--", "kselftest", *words]
    return subprocess.run(
        [sys.executable, "-m", "quizmatrix", *argv], capture_output=True, text=True, check=False
    )


def test_targets_are_built_and_run_on_both_byte_orders(tmp_path: Path) -> None:
    done = kselftest(tmp_path / "run", "size", "timers:posix_timers", "timers:nanosleep")
    results = json.loads((tmp_path / "run/results.json").read_bytes())
    for cell in results["cells"]:
        assert cell["outcome"] == "passed", done.stdout + done.stderr
        tests = json.loads((tmp_path / "run" / cell["cell"].replace(":", "_") / "subtests.json").read_bytes())
        names = {test["name"] for test in tests}
        programs = {name.partition("/")[0] for name in names}
        assert programs == {
            "selftests: size: get_size",
            "selftests: timers: posix_timers",
            "selftests: timers: nanosleep",
        }
        # Tests inside of a program.
        assert "selftests: timers: nanosleep/CLOCK_BOOTTIME" in names
    # Nothing is compiled again.
    again = kselftest(tmp_path / "again", "timers:nanosleep")
    assert again.returncode == 0
    assert "compiling" not in again.stderr


def test_what_cannot_be_built_is_told_before_the_run(tmp_path: Path) -> None:
    done = kselftest(tmp_path / "run", "no_such_target")
    assert done.returncode == 125
    assert "has no selftests `no_such_target`" in done.stdout + done.stderr
