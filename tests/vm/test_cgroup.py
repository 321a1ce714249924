"""Containers: a run in a real cgroup of this host, and cgroup version 2 inside a guest."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests import cgroups
from tests.vm.conftest import KERNEL, Quizmatrix

TREE = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_version_2_and_a_history_on_a_server_in_a_guest(quizmatrix: Quizmatrix) -> None:
    script = "mkfs.ext4 -q /dev/quizb0 && mount /dev/quizb0 /mnt && python3 tests/vm/version2.py $PWD"
    script += " && python3 tests/vm/remote.py"
    options = ["--image", "debian", "-p", "blockdev:count=1,size=400M", "--memory", "1G"]
    # In the guest there is only Python; the modules needed there import nothing else.
    options += ["--bind", f"{sysconfig.get_path('purelib')}:/srv/packages:ro"]
    options += ["--env", f"PYTHONPATH={TREE}:/srv/packages", "--env", "QUIZMATRIX_STATE_DIR=/shared/state"]
    done = quizmatrix("run", "--only", f"{KERNEL}-x86_64", *options, "--", script, cwd=TREE)
    assert (done.returncode, done.stdout) == (0, b"all of it\non a server\n"), done.stderr.decode()


def test_a_run_in_a_container(tmp_path: Path, environment: dict[str, str]) -> None:
    """With one CPU, one guest runs at a time. With 600 MiB, a guest that takes more is killed."""
    folder = tmp_path / "run"
    script = "[ $(uname -m) = x86_64 ] || exit 0; dd if=/dev/zero of=/tmp/big bs=1M count=800"
    argv = [sys.executable, "-m", "quizmatrix", "run", "-k", KERNEL, "-a", "s390x,x86_64", "--no-work-tree"]
    argv += ["--output", str(folder), "--memory", "2G", "--offline", "--", script]
    with cgroups.of_version_1(memory=600 << 20) as folders:
        done = subprocess.run(
            cgroups.entered(folders, argv), env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 125, done.stderr
    cells = {cell["arch"]: cell for cell in json.loads((folder / "results.json").read_bytes())["cells"]}
    assert (cells["x86_64"]["outcome"], cells["s390x"]["outcome"]) == ("lost", "passed")
    assert "QEMU was killed: this host ran out of memory" in cells["x86_64"]["detail"]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines() if line]
    order = [
        (event.get("cell") or event["result"]["cell"], event.get("stage", "finished"))
        for event in events
        if event.get("stage") == "booting" or "result" in event
    ]
    assert [what for _, what in order] == ["booting", "finished"] * 2, order
