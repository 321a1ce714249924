"""Layers that the user fills: his own in every run, and those of one run in that run alone."""

import subprocess
import sys
from pathlib import Path

CELL = "6.1-s390x"
SCRIPT = "cat /opt/*; ls /opt | wc -l"


def test_layers_of_runs_at_the_same_time(environment: dict[str, str], tmp_path: Path) -> None:
    standing = Path(environment["XDG_DATA_HOME"]) / "quizmatrix/layer/opt"
    standing.mkdir(parents=True)
    (standing / "every").write_text("every run\n")
    for name in ("one", "two"):
        (tmp_path / name / "opt").mkdir(parents=True)
        (tmp_path / name / "opt" / name).write_text(f"run {name}\n")

    def start(name: str) -> subprocess.Popen[bytes]:
        argv = ["run", "--only", CELL, "--layer", str(tmp_path / name), "--no-work-tree", "--", SCRIPT]
        return subprocess.Popen(
            [sys.executable, "-m", "quizmatrix", *argv], env=environment, stdout=subprocess.PIPE
        )

    with start("one") as one, start("two") as two:
        said = [child.communicate()[0].decode().split("\n") for child in (one, two)]
    assert said == [["every run", "run one", "2", ""], ["every run", "run two", "2", ""]]
    (tmp_path / "one/opt/one").write_text("changed\n")
    with start("one") as again:
        assert again.communicate()[0].decode().split("\n")[1] == "changed"
