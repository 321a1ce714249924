"""The command named in reproduce.sh and in reports repeats exactly its cell."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.vm.conftest import Quizmatrix

CELL = "6.1-x86_64@2of2"
MATRIX = """
source       = "debian-source"
kernels      = ["6.1"]
arches       = ["x86_64", "s390x"]
memory       = "700M"
boot-timeout = "50s"
append       = "loglevel=5"
"""


def seen(folder: Path) -> tuple[dict[str, Any], str]:
    """A cell's result, and the kernel that its guest booted."""
    script = (folder / CELL / "reproduce.sh").read_text()
    kernel = re.search(r"-kernel (\S+)", script)
    assert kernel is not None
    result = json.loads((folder / CELL / "result.json").read_bytes())
    argv = result["again"]["argv"]
    assert " ".join(argv[:4]) in script
    # Each run names itself as the one whose slices are meant: the next two may find other durations.
    of_itself = argv.index("--shard-like") + 1
    assert argv[of_itself] == folder.resolve().name
    argv[of_itself] = "ITSELF"
    return result, kernel[1]


def test_again_is_the_same(quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path) -> None:
    here = tmp_path / "here"
    for name in ("layer", "bound"):
        (here / name).mkdir()
    (here / "bound/word").write_text("bound\n")
    (here / "m.toml").write_text(MATRIX)
    options = [
        *("--shard", "2", "--accel", "tcg", "--timeout", "40s", "--layer", "layer", "--bind", "bound:/b:ro"),
        *("--env", "A=it's", "--append", "quiz.x=-y", "--user", "nobody", "-p", "memdev:count=1,size=16M"),
    ]
    script = 'cat /proc/cmdline /b/word; echo "$A" $QUIZMATRIX_SHARD; id -un; uname -r; exit 3'
    first = quizmatrix("run", "m.toml", "--only", "6.1-*@2of2", "--skip", "*-s390x", *options, "--", script)
    assert first.returncode == 3, first.stderr.decode()
    latest = tmp_path / "state/runs/latest"
    result, kernel = seen(latest)
    # The command as a person copies it, run in another folder.
    report = quizmatrix("runs", "show", "latest", "--markdown", "-").stdout.decode()
    typed = re.search(r"^(cd .* && quizmatrix run .*)$", report, re.MULTILINE)
    assert typed is not None, report
    assert "m.toml --only 6.1-x86_64@2of2" in typed[1]
    programs = Path(sys.executable).parent
    own = environment | {"PATH": f"{programs}:{environment['PATH']}"}
    done = subprocess.run(["sh", "-c", typed[1]], cwd="/", env=own, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (first.returncode, first.stdout), done.stderr.decode()
    again, kernel_again = seen(latest)
    assert (again["release"], kernel_again) == (result["release"], kernel)
    # All that determines a guest: kernel, limits, options.
    assert result["inputs"] == again["inputs"] != ""
    assert result["again"] == again["again"]
