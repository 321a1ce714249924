"""Reading ELF files, complete and broken."""

import os
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quizmatrix.core import elf
from tests.tiny_elf import X86_64, header, with_loader

COMPILERS = {
    "gcc": None,
    "s390x-linux-gnu-gcc": elf.Machine(machine=22, bits=64, byte_order="big"),
    "powerpc64-linux-gnu-gcc": elf.Machine(machine=21, bits=64, byte_order="big"),
}
# The offset of the number of sections in a 64-bit header.
SECTION_COUNT = 60


DYNAMIC = ("-pie", "-fPIE", "-Wl,--dynamic-linker,/lib/ld-ours.so")


@cache
def compiled(compiler: str, *options: str) -> bytes:
    """A program that needs no library to be linked."""
    with TemporaryDirectory() as folder:
        source, program = Path(folder, "prog.c"), Path(folder, "prog")
        source.write_text("int number;\nint main(void) { return number; }\n")
        argv = [compiler, "-nostdlib", "-Wl,-e,main", *options, "-o", str(program), str(source)]
        subprocess.run(argv, check=True)
        return program.read_bytes()


def whole() -> list[bytes]:
    """Real programs, of all byte orders and sizes that this host has compilers for."""
    made = [compiled(name, "-g", *DYNAMIC) for name in COMPILERS if shutil.which(name)]
    loaders = [with_loader(bits=bits, byte_order=order) for bits in (32, 64) for order in ("little", "big")]
    return [*made, *loaders, X86_64, header(3, bits=32)]


def first_section(data: bytes | bytearray) -> int:
    """The offset of the section headers in a 64-bit file."""
    (start,) = struct.unpack_from("<Q" if data[5] == 1 else ">Q", data, 40)
    assert isinstance(start, int)
    return start


@pytest.mark.parametrize("name", COMPILERS)
def test_what_compilers_make(name: str, tmp_path: Path) -> None:
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    path = tmp_path / "prog"
    for options, has_lines, is_dynamic in ((DYNAMIC, False, True), (("-g", "-static"), True, False)):
        path.write_bytes(compiled(name, *options))
        machine = elf.machine_of(path)
        assert machine is not None
        assert machine == (COMPILERS[name] or machine)
        assert (machine.byte_order == sys.byteorder) == (name == "gcc" or sys.byteorder == "big")
        assert elf.interpreter_of(path) == ("/lib/ld-ours.so" if is_dynamic else None)
        kinds = [kind for kind, _, _ in elf.segments(path.read_bytes())]
        assert "PT_LOAD" in kinds
        assert ("PT_INTERP" in kinds) is is_dynamic
        assert elf.has_section(path, ".debug_line") is has_lines
        assert elf.has_section(path, ".text")
        assert not elf.has_section(path, ".tex")


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A program with some bytes changed, and cut short."""
    data = bytearray(draw(st.sampled_from(whole())))
    begins = [0, 64]
    if data[4] == 2 and first_section(data):
        begins.append(first_section(data))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.sampled_from(begins)) + draw(st.integers(0, 200))
        new = draw(
            st.one_of(st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7]), st.binary(max_size=8))
        )
        data[at : at + len(new)] = new
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@given(data=broken())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_broken_programs(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prog"
    path.write_bytes(data)
    machine = elf.machine_of(path)
    if machine is not None:
        assert machine.byte_order == ("little" if data[5] == 1 else "big")
        assert (machine.machine,) == struct.unpack("<H" if data[5] == 1 else ">H", data[18:20])
        assert machine.bits == 32 * data[4]
    loader = elf.interpreter_of(path)
    assert loader is None or os.fsencode(loader) in data
    assert len(elf.segments(data)) <= 100
    assert elf.has_section(path, ".debug_line") in (True, False)


def test_numbers_of_machines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "prog"
    for number in (*range(300), *range(300, 1 << 16, 97)):
        path.write_bytes(header(number))
        assert elf.machine_of(path) == elf.Machine(machine=number, bits=64, byte_order="little")


def test_a_header_that_ends_behind_its_machine(tmp_path: Path) -> None:
    path = tmp_path / "prog"
    path.write_bytes(X86_64[:20])
    assert elf.machine_of(path) == elf.Machine(machine=62, bits=64, byte_order="little")
    assert elf.segments(X86_64[:20]) == []


@pytest.mark.parametrize("count", [101, 0xFFFF])
@pytest.mark.parametrize("size", [0, 56])
def test_more_segments_than_a_program_has(count: int, size: int) -> None:
    head = bytearray(with_loader(bits=64, byte_order="little"))
    struct.pack_into("<HH", head, 54, size, count)
    assert elf.segments(bytes(head) + bytes(1 << 16)) == []


def endless(tmp_path: Path, *, count: int, fill: bytes) -> Path:
    """A program with many sections (0: the number is in the first one), and names without an end."""
    data = bytearray(X86_64.ljust(4096, b"\0"))
    struct.pack_into("<Q", data, 40, 256)
    struct.pack_into("<HHH", data, 58, 64, count, 1)
    struct.pack_into("<QQ", data, 256 + 24, 0, (1 << 64) - 1)
    struct.pack_into("<QQ", data, 320 + 24, 4096, (1 << 64) - 1)
    path = tmp_path / "prog"
    path.write_bytes(bytes(data) + fill)
    os.truncate(path, max(len(data) + len(fill), 1 << 36 if not fill else 0))
    return path


@pytest.mark.parametrize("count", [0, 0xFFFF])
@pytest.mark.parametrize("fill", [b"", b"a" * (32 << 20)])
def test_sections_and_names_without_an_end(count: int, fill: bytes, tmp_path: Path) -> None:
    assert not elf.has_section(endless(tmp_path, count=count, fill=fill), ".debug_line")


def test_what_is_no_elf_file_does_not_import_pyelftools(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    script = (
        "import sys; from pathlib import Path; from quizmatrix.core import elf; path = Path(sys.argv[1]); "
        "assert elf.machine_of(path) is None and elf.interpreter_of(path) == '/bin/sh'; "
        "sys.exit('elftools' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "script")], check=True)
