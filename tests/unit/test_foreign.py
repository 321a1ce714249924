"""Programs of another architecture, as far as no guest is booted."""

import shutil
import subprocess
from pathlib import Path

import pytest

from quizmatrix.core import elf
from quizmatrix.model.arch import arch_names, load_arch, machine_name, machines
from quizmatrix.model.cells import expand
from quizmatrix.model.matrix import Matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.report.common import common_sentence
from quizmatrix.run import foreign
from tests.tiny_elf import X86_64, header, with_loader


@pytest.mark.parametrize("name", sorted(machines()))
def test_every_machine_by_its_header(name: str, tmp_path: Path) -> None:
    machine = machines()[name]
    data = header(machine.machine, bits=machine.bits, byte_order=machine.byte_order)
    (tmp_path / "prog").write_bytes(data)
    found = elf.machine_of(tmp_path / "prog")
    assert found == machine
    assert machine_name(found) == name
    for arch in map(load_arch, arch_names()):
        runs = name == arch.name or name in arch.facts.elf.also
        assert foreign.foreign_machine_of(tmp_path / "prog", arch) == (None if runs else name)
    # What a shell reports.
    digits = data[:20].hex()
    for other in machines().values():
        script = f"case {digits} in {other.pattern}) exit 0 ;; esac; exit 1"
        assert subprocess.run(["sh", "-c", script], check=False).returncode == (other != machine)


def test_what_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"#!/bin/sh\n", X86_64[:19], header(62, kind=1), b"\x7fELF" + bytes(60)):
        path.write_bytes(data)
        assert elf.machine_of(path) is None
    assert elf.machine_of(tmp_path) is None
    assert elf.machine_of(tmp_path / "none") is None
    path.write_bytes(header(999))
    assert foreign.foreign_machine_of(path, load_arch("x86_64")) == "machine 999"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["./prog", "a b"], "./prog"),
        (["./prog -x /y"], "./prog"),
        (["  ./prog"], "./prog"),
        (["./prog && true"], None),
        (["X=1 ./prog"], None),
        (["$PROG"], None),
        (["./prog", "&&", "true"], None),
        (["sh", "-c", "./prog"], "sh"),
    ],
)
def test_the_word_that_names_the_program(command: list[str], word: str | None) -> None:
    assert elf.program_word(command) == word


def test_before_the_boot(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    program = tree / "below/prog"
    program.write_bytes(X86_64)
    program.chmod(0o755)
    (tmp_path / "link").symlink_to("tree")
    shutil.copy(program, tmp_path / "outside")
    s390x, x86_64 = expand(Matrix(kernels=["6.1"], arches=["s390x", "x86_64"]), "test")

    def told(*command: str, hidden: tuple[str, ...] = ()) -> str | None:
        assert foreign.before_boot(x86_64, [*command], str(tree), [*hidden]) is None
        return foreign.before_boot(s390x, [*command], str(tree), [*hidden])

    assert told("below/prog", "x") == told("./below/prog") == told(str(program)) == "x86_64"
    assert told(f"{tmp_path}/link/below/prog", "x") == "x86_64"
    assert told("prog") is told("../outside", "x") is told("sh", "below/prog") is None
    assert told("below/prog", "x", hidden=(str(tree / "below"),)) is None
    program.chmod(0o644)
    assert told("below/prog", "x") is None


def test_it_is_no_evidence() -> None:
    def result(arch: str, outcome: Outcome, name: str = "") -> CellResult:
        return CellResult(
            cell=f"6.1-{arch}",
            kernel="6.1",
            release=None,
            arch=arch,
            variant=None,
            accelerator=None,
            outcome=outcome,
            foreign=name,
        )

    passed, other = result("x86_64", Outcome.PASSED), result("ppc64", Outcome.PASSED)
    assert common_sentence([passed, result("s390x", Outcome.FAILED)]) == "Fails only on s390x."
    assert common_sentence([passed, result("s390x", Outcome.FAILED, "x86_64")]) == ""
    failed = result("ppc64", Outcome.FAILED)
    assert (
        common_sentence([passed, failed, result("s390x", Outcome.FAILED, "x86_64")]) == "Fails only on ppc64."
    )
    assert common_sentence([passed, other, result("s390x", Outcome.FAILED, "x86_64")]) == ""


def test_what_a_shell_could_not_run() -> None:
    said = b"""./prog: line 1: syntax error: unexpected "("
./t.sh: 3: ./other: not found
bash: line 2: ./third: cannot execute binary file: Exec format error
oops
"""
    assert list(elf.not_executable(said)) == ["./third", "./prog", "./t.sh", "bash"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line", [b"a" * (1 << 20), b"a:" * (1 << 19), b"a: " * (1 << 18), b"a\n" * (1 << 19)]
)
def test_a_guests_lines_hold_nobody_up(line: bytes) -> None:
    assert list(elf.not_executable(line)) == []


def test_what_a_file_needs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, needed in (
        (b"#! /bin/bash -e\ntrue\n", "/bin/bash"),
        (b"#!/usr/bin/python3", "/usr/bin/python3"),
        (b"#!\n", None),
        (b"true\n", None),
        (b"", None),
        (X86_64, None),
        (with_loader(bits=64, byte_order="little"), "/lib/ld.so"),
        (with_loader(bits=64, byte_order="big"), "/lib/ld.so"),
        (with_loader(bits=32, byte_order="little"), "/lib/ld.so"),
        (with_loader(bits=32, byte_order="big"), "/lib/ld.so"),
        *((with_loader(bits=64, byte_order="little")[:size], None) for size in (4, 5, 40, 70, 100)),
    ):
        path.write_bytes(data)
        assert elf.interpreter_of(path) == needed
    assert elf.interpreter_of(tmp_path / "none") is elf.interpreter_of(tmp_path) is None
    path.write_bytes(b"\x7fELF" + b"\xff" * 1000)  # rubbish, read without an end
    assert elf.interpreter_of(path) is None


def test_what_a_shell_does_not_find() -> None:
    said = b"""/bin/sh: ./prog: not found
./t.sh: line 3: ./a b: not found
env: 'bash': No such file or directory
./prog: not found here
"""
    assert list(elf.not_found(said)) == ["./prog", "./a b", "bash"]
