"""Workers that are killed at random while a sweep runs: every cell has one verdict, and no guest is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.vm.farm import Farm

CELL = "6.1-x86_64"
# `make check-all` has a hundred, over two hundred cells.
KILLS = int(os.environ.get("QUIZMATRIX_KILLS", "4"))
CELLS = 2 * KILLS
# Milliseconds between two kills, at most.
PAUSE = 3000

pytestmark = pytest.mark.timeout(240 + 30 * KILLS)


def test_workers_that_are_killed(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, environment: dict[str, str]
) -> None:
    farm = Farm(tmp_path_factory.mktemp("farm"), cpus=(1, 1, 1))
    kills, sweeps = 0, 0
    try:
        while kills < KILLS:
            sweeps += 1
            output = tmp_path / f"run{sweeps}"
            kills += killed_during(sweep(farm, output, environment), farm, KILLS - kills)
            check(output)
    finally:
        # It says where a guest is left.
        farm.stop()
    print(f"{kills} kills in {sweeps} sweeps of {CELLS} cells")


def sweep(farm: Farm, output: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", CELL, "--shard", str(CELLS), "--cpus", "1"]
    argv += [*farm.options, "--offline", "--output", str(output), "--", "echo $QUIZMATRIX_SHARD; sleep 1"]
    return subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def killed_during(run: subprocess.Popen[bytes], farm: Farm, most: int) -> int:
    """Kill workers as long as the run goes on, and start them again; returns how many."""
    kills = 0
    try:
        while kills < most:
            time.sleep(secrets.randbelow(PAUSE) / 1000)
            if run.poll() is not None:
                break
            victim = secrets.choice(farm.hosts)
            victim.kill()
            kills += 1
            victim.start()
        run.wait()
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()
    return kills


def check(output: Path) -> None:
    results = json.loads((output / "results.json").read_bytes())
    cells = {cell["cell"]: cell for cell in results["cells"]}
    assert len(results["cells"]) == len(cells) == CELLS
    events = [json.loads(line) for line in (output / "events.jsonl").read_bytes().splitlines()]
    ended = Counter(event["result"]["cell"] for event in events if event["event"] == "finished")
    assert set(ended.values()) == {1}
    assert ended.keys() == cells.keys()
    # Few are unlucky four times.
    assert sum(cell["outcome"] == "passed" for cell in cells.values()) > CELLS * 0.7
    for number in range(1, CELLS + 1):
        cell = cells[f"{CELL}@{number}of{CELLS}"]
        if cell["outcome"] == "passed":
            assert (output / cell["cell"] / "stdout").read_text() == f"{number}\n"
        else:
            # Dask gives a job up that was lost with four workers.
            assert (cell["outcome"], "was lost on 4 hosts" in cell["detail"]) == ("unprepared", True)
