"""Further guests of a cell: the rest of a crashed one, and failed tests once more, with a toy suite."""

import json
from pathlib import Path

from tests.vm.conftest import Quizmatrix

# It prints OpenZFS's format, and heeds the lists of tests. `crash` ends its guest. `flaky` fails only the
# first time, which it knows by a folder that guests may write to.
SUITE = r"""#!/bin/sh
echo "# quizmatrix: selects tests"
for test in setup first crash second flaky bad last; do
    if [ -n "$QUIZMATRIX_TESTS_FILE" ] && ! grep -qx "f/$test" "$QUIZMATRIX_TESTS_FILE"; then continue; fi
    if [ -n "$QUIZMATRIX_SKIP_FILE" ] && grep -qx "f/$test" "$QUIZMATRIX_SKIP_FILE"; then continue; fi
    echo "ZTS run /usr/share/zfs/zfs-tests/tests/f/$test" >/dev/kmsg
    echo "ran $test" >>/shared/log
    result=PASS
    case $test in
    crash) sync; echo c >/proc/sysrq-trigger; sleep 60 ;;
    flaky) [ -e /state/flaky ] || result=FAIL; touch /state/flaky ;;
    bad) result=FAIL ;;
    esac
    echo "Test: /usr/share/zfs/zfs-tests/tests/f/$test (run as root) [00:02] [$result]"
    [ $result = PASS ] || failed=1
done
exit ${failed:-0}
"""


def outcomes_of(folder: Path) -> dict[str, str]:
    listed = json.loads((folder / "subtests.json").read_bytes())
    return {
        test["name"].removeprefix("f/"): test["outcome"] + (" again" if test.get("failed_before") else "")
        for test in listed
    }


def test_a_crash_loses_one_test_and_what_failed_runs_once_more(
    quizmatrix: Quizmatrix, tmp_path: Path
) -> None:
    here, run = tmp_path / "here", tmp_path / "run"
    (here / "suite").write_text(SUITE)
    (here / "suite").chmod(0o755)
    (here / "state").mkdir()
    options = ["--rerun-failed", "1", "--bind", f"{here}/state:/state", "--output", str(run)]
    done = quizmatrix("run", "--only", "6.1-x86_64", "--offline", *options, "--", "./suite")
    assert done.returncode == 1, done.stderr.decode()
    cell = run / "6.1-x86_64"
    result = json.loads((cell / "result.json").read_bytes())
    assert result["outcome"] == "panicked"
    assert "while f/crash ran" in result["detail"]
    # `crash` also ends the guest in which the failed tests run once more, and its others go on in a new one.
    assert result["further"] == ["rest-1", "rerun-1", "rerun-1-rest-1"]
    assert outcomes_of(cell) == {
        **dict.fromkeys(["setup", "first", "second", "last"], "passed"),
        "crash": "failed",
        "flaky": "passed again",
        "bad": "failed",
    }
    assert result["subtests"] == {"passed": 5, "failed": 2}
    assert result["flaky"] == ""
    ran = {
        name: (cell / name / "artifacts/log").read_text().replace("ran ", "").split()
        for name in (".", *result["further"])
    }
    assert ran == {
        ".": ["setup", "first", "crash"],
        "rest-1": ["second", "flaky", "bad", "last"],
        "rerun-1": ["crash"],
        "rerun-1-rest-1": ["flaky", "bad"],
    }
    for name in result["further"]:
        assert (cell / name / "console.log").stat().st_size
        assert json.loads((cell / name / "result.json").read_bytes())["cell"] == "6.1-x86_64"


def test_a_cell_whose_failed_tests_pass_again_has_passed(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """Also where the command runs all of its tests again: then only those that had failed count."""
    here, run = tmp_path / "here", tmp_path / "run"
    (here / "state").mkdir()
    script = (
        "n=$(ls /state | wc -l); touch /state/$n; echo 1..3; echo ok 1 a;"
        "[ $n = 0 ] && { echo not ok 2 b; echo ok 3 c; exit 1; }; echo ok 2 b; echo not ok 3 c; exit 1"
    )
    options = ["--rerun-failed", "3", "--bind", f"{here}/state:/state", "--output", str(run)]
    done = quizmatrix("run", "--only", "6.1-x86_64", "--offline", *options, "--", script)
    result = json.loads((run / "6.1-x86_64/result.json").read_bytes())
    assert (done.returncode, result["outcome"], result["exit_code"]) == (0, "passed", 0), done.stderr
    assert result["flaky"] == "1 test failed, then passed"
    assert result["further"] == ["rerun-1"]
    assert result["subtests"] == {"passed": 3}
    logs = quizmatrix("runs", "logs", str(run), "6.1-x86_64").stdout.decode()
    first, again = logs.removeprefix("==> 6.1-x86_64 <==\n").split("\n==> 6.1-x86_64, rerun-1 <==\n")
    assert [line.split()[-1] for line in first.splitlines() if line.startswith("not ok")] == ["b"]
    assert [line.split()[-1] for line in again.splitlines() if line.startswith("not ok")] == ["c"]
