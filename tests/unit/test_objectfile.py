"""Symbols and libraries of ELF files, against readelf(1), and of damaged ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.build.module import missing
from quizmatrix.core import objectfile

SOURCE = """
extern int wanted(void);
extern int perhaps(void) __attribute__((weak));
static int local(void) { return wanted(); }
int made(void) { return local() + (perhaps ? perhaps() : 0); }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an object file."""
    folder = tmp_path_factory.mktemp("objects")
    (folder / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", "-c", "-O0", "-o", "a.o", "a.c"], cwd=folder, check=True)
    return folder


def test_symbols(compiled: Path) -> None:
    with objectfile.parsed((compiled / "a.o").read_bytes()) as elf:
        found = {one.name: (one.is_undefined, one.is_wanted) for one in objectfile.global_symbols(elf)}
    assert found[b"made"] == (False, False)
    assert found[b"wanted"] == (True, True)
    assert found[b"perhaps"] == (True, False)
    assert b"local" not in found


def test_what_objects_use_and_define(compiled: Path) -> None:
    (compiled / "damaged.o").write_bytes((compiled / "a.o").read_bytes()[:300])
    (compiled / "link.o").symlink_to("/etc/passwd")
    used, defined = missing._symbols_below(compiled)
    assert used - {"_GLOBAL_OFFSET_TABLE_"} == {"wanted"}
    assert defined == {"made"}


def test_libraries() -> None:
    program = Path(sys.executable).resolve()
    said = subprocess.run(["readelf", "-dW", program], capture_output=True, text=True, check=True).stdout
    needed = [line.rpartition("[")[2].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    assert objectfile.needed_by(program) == needed
    assert needed


@given(st.integers(0, 4000), st.binary(min_size=1, max_size=16))
def test_damaged_files(compiled: Path, place: int, noise: bytes) -> None:
    data = bytearray((compiled / "a.o").read_bytes())
    place %= len(data)
    data[place : place + len(noise)] = noise
    try:
        with objectfile.parsed(bytes(data)) as elf:
            names = [one.name for one in objectfile.global_symbols(elf)]
    except ValueError:
        return
    assert all(len(name) <= 512 for name in names)
