"""Every command in docs/tutorial.md prints what the page shows."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quizmatrix.core import paths

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"

# What differs from run to run: ids, seconds, releases, a trace's offsets and its fingerprint.
VARIABLE = (
    (r"\d{8}-\d{6}-[0-9a-f]{4}", "RUN"),
    (r"\b\d+(\.\d+)?s\b", "TIME"),
    (r"\b\d+m\d\ds\b", "TIME"),
    (r"newest \(\S+\)", "newest (VERSION)"),
    (r"\b(\d+\.\d+)\.\d+-\d+-(\w+)", r"\1.PATCH-\2"),
    (r"(\.cold)?\+0x[0-9a-f]+/0x[0-9a-f]+", ""),
    (r"fingerprint: [0-9a-f]+", "fingerprint: SOME"),
    # Where the cache has the debug information of the kernel.
    (r"  \(\S+\.[chS]:\d+\)$", ""),
    (r"-{2,}", "--"),
    (r"[ \t]+", " "),
)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of the `console` blocks, here-documents included, with the lines shown below it."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for one in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            here = re.match(r"[^\n]*<<'END'\n.*?^END\n", one, re.DOTALL | re.MULTILINE)
            command = here.group() if here else one.partition("\n")[0]
            yield command, one[len(command) :].strip("\n").splitlines()


def comparable(lines: list[str], home: Path) -> list[str]:
    """The lines without what differs from run to run, and without the progress that a terminal overwrites."""
    text = "\n".join(line.rstrip() for line in lines if not re.match(r"\[ *[\d.]+m?s\] ", line))
    text = text.replace(str(home), "/home/you")
    for pattern, word in VARIABLE:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text.splitlines()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the tutorial shows the grid of an x86_64 host")
@pytest.mark.timeout(900)
def test_the_tutorial(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "QUIZMATRIX_"))}
    own = {
        "HOME": str(home),
        "QUIZMATRIX_CACHE_DIR": str(paths.cache_dir()),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "120",
    }
    ran = 0
    for command, shown in commands(TUTORIAL.read_text()):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=here,
            env=kept | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        printed = done.stdout.decode().strip("\n").splitlines()
        assert comparable(printed, home) == comparable(shown, home), command
        ran += 1
    assert ran > 15
