"""Tests that are known to fail, and the test that was running when a guest died, in real guests."""

import json
from pathlib import Path

from tests.vm.conftest import Quizmatrix

MATRIX = """
kernels = ["6.1"]
arches = ["x86_64", "s390x"]
known = [
    { test = "rsend/*", arch = "s390x", why = "#12" },
    { test = "nothing/*", why = "#13" },
    { test = "good/*", arch = "x86_64", why = "#14" },
]
"""
# One of its tests fails on s390x, and so does it itself. Its own time limit is scaled in emulated guests.
SCRIPT = """
echo 1..3; echo ok 1 good/a; bad=0
[ $QUIZMATRIX_ARCH = x86_64 ] || bad=1
[ $bad = 0 ] && echo ok 2 rsend/b || echo not ok 2 rsend/b
[ $QUIZMATRIX_TIMEOUT_FACTOR -ge 1 ] && echo ok 3 rsend/c
exit $bad
"""
# What OpenZFS's runner leaves while a test runs (zfs_test_runner.py), and a result that the crash cuts.
DIES = """
mkdir /shared/test_results
printf '/usr/share/zfs/zfs-tests/tests/functional/rsend/rsend_001_pos\\nSUCCESS: zfs create\\n' \
    >/shared/test_results/running.log
printf 'TAP version 13\\n1..2\\nok 1 a\\nok 2 unfin'
sleep 1
echo c >/proc/sysrq-trigger
"""


def test_a_cell_whose_failures_are_known_has_passed(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MATRIX)
    done = quizmatrix("run", str(tmp_path / "m.toml"), "--output", str(tmp_path / "run"), "--", SCRIPT)
    report = done.stdout.decode()
    assert done.returncode == 0, report + done.stderr.decode()
    cells = {cell["arch"]: cell for cell in json.loads((tmp_path / "run/results.json").read_bytes())["cells"]}
    assert cells["s390x"]["subtests"] == {"passed": 2, "failed-as-expected": 1}
    assert (cells["s390x"]["outcome"], cells["s390x"]["exit_code"]) == ("passed", 1)
    assert cells["s390x"]["known"] == [
        {"test": "rsend/*", "ran": 2, "failed": 1},
        {"test": "nothing/*", "ran": 0, "failed": 0},
    ]
    assert report.count("Known failures that fit no test that ran: nothing/*") == 1
    assert "Known to fail, and passed on 6.1-x86_64: good/*" in report
    assert "Tests on 6.1-s390x: 2 passed, 1 failed as expected" in report
    assert "Fails only" not in report


def test_the_test_that_was_running_is_named_and_its_log_is_shown(
    quizmatrix: Quizmatrix, tmp_path: Path
) -> None:
    options = ("run", "--only", "6.1-x86_64", "--output", str(tmp_path / "run"))
    done = quizmatrix(*options, "--", DIES)
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "panicked: sysrq triggered crash, while functional/rsend/rsend_001_pos ran" in said
    assert "functional/rsend/rsend_001_pos was running, and had printed:\n    SUCCESS: zfs create\n" in said
    (cell,) = json.loads((tmp_path / "run/results.json").read_bytes())["cells"]
    assert (cell["running"], cell["subtests"]) == ("functional/rsend/rsend_001_pos", {"passed": 1})
    assert (tmp_path / "run/6.1-x86_64/running.log").read_text() == "SUCCESS: zfs create\n"
