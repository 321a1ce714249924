"""The programs of guest/programs are what their source says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from quizmatrix.core import elf
from quizmatrix.model.arch import arch_names, load_arch

PROGRAMS = Path(__file__).parents[2] / "guest/programs"
NAMES = ("join", "agent")

# Those whose compilers every developer has (.ci/install-packages), and the version that made what is in git.
COMPILED = {
    "x86_64": "x86_64-linux-gnu-gcc",
    "s390x": "s390x-linux-gnu-gcc",
    "ppc64": "powerpc64-linux-gnu-gcc",
}
VERSION = "12"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arch", arch_names())
def test_each_architecture_has_its_program(arch: str, name: str) -> None:
    program = PROGRAMS / f"{name}.{arch}"
    assert elf.machine_of(program) == load_arch(arch).machine
    assert program.stat().st_mode & 0o111
    assert program.stat().st_size < 20_000
    # It needs no library, and no interpreter.
    assert b"ld-linux" not in program.read_bytes()


@pytest.mark.parametrize("arch", COMPILED)
def test_its_source_makes_the_same_bytes(arch: str, tmp_path: Path) -> None:
    compiler = shutil.which(COMPILED[arch])
    assert compiler is not None
    done = subprocess.run(
        ["make", "-C", str(PROGRAMS), f"ARCHES={arch}", f"INTO={tmp_path}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, check=True).stdout
    if version.strip() != VERSION:
        pytest.skip(
            f"it was made by GCC {VERSION}, and this is {version.strip()}: other compilers make others"
        )
    for name in NAMES:
        assert (tmp_path / f"{name}.{arch}").read_bytes() == (PROGRAMS / f"{name}.{arch}").read_bytes()


def test_they_are_made_for_every_architecture() -> None:
    made = re.search(r"^ARCHES := (.*)$", (PROGRAMS / "Makefile").read_text(), re.MULTILINE)
    assert made is not None
    assert sorted(made[1].split()) == sorted(arch_names())
