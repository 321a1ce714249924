"""A run that the version at 1795248 began is resumed, and its nightly job runs, in real guests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.earlier import FAILED, KILLED, copy_to


def quizmatrix(root: Path, environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "quizmatrix", *argv],
        cwd=root / "here",
        env=dict(os.environ) | environment,
        capture_output=True,
        check=False,
    )


def results_of(root: Path, run: str) -> Any:
    return json.loads((root / "state/runs" / run / "results.json").read_bytes())


def test_it_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "earlier"
    environment = copy_to(root)
    done = quizmatrix(root, environment, "run", "--resume", KILLED)
    assert done.returncode == 1, done.stderr.decode()
    results = results_of(root, KILLED)
    assert [(one["cell"], one["outcome"], one["exit_code"]) for one in results["cells"]] == [
        ("6.1-x86_64", "failed", 3),
        ("6.1-s390x", "failed", 3),
    ]
    cell = root / "state/runs" / KILLED / "6.1-x86_64"
    # What was bound. (The image has no printenv.)
    assert (cell / "stdout").read_text() == "bound\n"
    assert results["cells"][0]["again"]["argv"] == [
        *("quizmatrix", "run", "m.toml", "--only", "6.1-x86_64", "--profiles", "memdev:count=1,size=16M"),
        *("--no-stdin", "--layer", "../base", "--bind", "../base:/b:ro", "--env", "B=-y z", "--"),
        "cat /b/word; printenv B; exit 3",
    ]
    # The cells that failed last are run again, with the options of that run.
    command = 'test "$(uname -m)" = x86_64 || test -e fixed'
    (root / "here/fixed").touch()
    done = quizmatrix(root, environment, "run", "m.toml", "--last-failed", "--user", "nobody", "--", command)
    assert done.returncode == 0, done.stderr.decode()
    results = results_of(root, "latest")
    assert [(one["cell"], one["earlier"]) for one in results["cells"]] == [
        ("6.1-x86_64", FAILED),
        ("6.1-s390x", ""),
    ]
    assert results["options"]["guest"] == {"user": "nobody"}


def test_its_night(tmp_path: Path) -> None:
    root = tmp_path / "earlier"
    environment = copy_to(root)
    # The job names the cache; here it is this host's.
    (root / "cache").symlink_to(
        os.environ.get("QUIZMATRIX_CACHE_DIR", Path.home() / ".cache/quizmatrix"), target_is_directory=True
    )
    script = root / "here/t"
    script.write_text('#!/bin/sh\necho "$1 $A" $(cat /etc/standing)\n')
    script.chmod(0o755)
    done = quizmatrix(root, environment, "nightly", "run", "n")
    assert done.returncode == 0, done.stderr.decode()
    results = results_of(root, "latest")
    assert [one["cell"] for one in results["cells"]] == ["6.1-s390x"]
    assert results["arguments"][-1] == "--quiet"
    assert results["options"]["results"] == {"fail_on": "regression", "quiet": True}
    assert (root / "state/runs/latest/6.1-s390x/stdout").read_text() == "a b x standing\n"
