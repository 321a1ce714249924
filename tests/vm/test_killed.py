"""A run of real VMs that is killed at any moment."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix
from tests.vm.test_runner import children, wait_until_gone

CELLS = ["6.1-x86_64", "6.1-s390x"]
COMMAND = "echo done; echo once >> /shared/log"


@pytest.mark.timeout(600)
def test_killed_at_ten_instants(environment: dict[str, str], quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    instants = random.SystemRandom()
    unended = 0
    for number in range(10):
        run = tmp_path / f"run{number}"
        # A boot takes about three seconds emulated, one with KVM; a restored guest a tenth of that.
        start, longest = (["--cold"], 4.0) if number % 2 else ([], 1.0)
        argv = ["run", "-k", "6.1", "-a", "x86_64,s390x", "--offline", "--output", str(run), *start]
        argv += ["--", COMMAND]
        with subprocess.Popen(
            [sys.executable, "-m", "quizmatrix", *argv],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as runner:
            while not (run / "events.jsonl").exists():
                time.sleep(0.01)
            time.sleep(instants.uniform(0, longest))
            machines = children(runner.pid) if runner.poll() is None else []
            runner.kill()
        assert wait_until_gone(machines, 1)
        shown = quizmatrix("runs", "show", str(run))
        assert shown.returncode == 0, shown.stderr
        before = json.loads((run / "results.json").read_bytes())
        if before["finished"] is not None:
            continue
        unended += 1
        assert b"--resume" in shown.stdout
        done = quizmatrix("run", "--resume", str(run), "--offline")
        assert done.returncode == 0, done.stdout + done.stderr
        whole = json.loads((run / "results.json").read_bytes())
        assert whole["run"] == before["run"]
        assert [cell["cell"] for cell in whole["cells"]] == CELLS
        assert whole["totals"] == {"passed": 2}
        for cell in CELLS:
            # Cells that had passed were not run again.
            assert (run / cell / "stdout").read_bytes() == b"done\n"
            assert (run / cell / "artifacts/log").read_text() == "once\n"
        kept = {cell["cell"]: cell for cell in before["cells"]}
        assert all(cell == kept.get(cell["cell"], cell) for cell in whole["cells"])
    assert unended > 0
