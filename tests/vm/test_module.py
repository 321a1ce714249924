"""Modules of the user's, in guests of a big-endian kernel that was built here."""

from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix

CELL = "debian-source:6.12-ppc64"

MODULE = """
#include <linux/module.h>
#include <asm/byteorder.h>
static int __init hello(void)
{
	u16 number = 1;

	pr_info("hello, %s-endian\\n", *(u8 *)&number ? "little" : "big");
	return 0;
}
static void __exit bye(void)
{
}
module_init(hello);
module_exit(bye);
MODULE_LICENSE("GPL");
"""

# Seconds; two cores need about seven minutes for the kernel.
LIMIT = 3000

pytestmark = [pytest.mark.timeout(LIMIT), pytest.mark.usefixtures("prepared")]


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """The source; its name differs from any module of the user's."""
    folder = tmp_path / "a module of mine"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m := quizmatrix_hello.o\n")
    (folder / "quizmatrix_hello.c").write_text(MODULE)
    return folder


def test_a_module_is_built_loaded_edited_and_removed(quizmatrix: Quizmatrix, hello: Path) -> None:
    def build() -> str:
        done = quizmatrix("module", "build", str(hello), "--only", CELL)
        assert done.returncode == 0, done.stderr
        (row,) = [line for line in done.stdout.decode().splitlines() if line.startswith(CELL)]
        return row.split()[1]

    def said_in_a_guest() -> str:
        script = "modprobe dm_mod && modprobe quizmatrix_hello && dmesg | grep -o 'hello, .*'"
        done = quizmatrix("run", "--only", CELL, "--", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    before = {path: path.stat().st_mtime_ns for path in hello.rglob("*")}
    try:
        assert build() == "built"
        assert said_in_a_guest() == "hello, big-endian\n"
        assert build() == "reused"
        assert {path: path.stat().st_mtime_ns for path in hello.rglob("*")} == before
        source = hello / "quizmatrix_hello.c"
        source.write_text(MODULE.replace("hello, %s", "hello, edited %s"))
        assert build() == "built"
        assert said_in_a_guest() == "hello, edited big-endian\n"
        source.write_text(MODULE.replace("u16 number", "u17 number"))
        done = quizmatrix("module", "build", str(hello), "--only", CELL)
        assert done.returncode == 125
        assert f"{source}:6:9: error: unknown type name" in done.stderr.decode()
        assert said_in_a_guest() == "hello, edited big-endian\n"
    finally:
        removed = quizmatrix("module", "remove", str(hello))
    assert removed.returncode == 0, removed.stderr
    done = quizmatrix("run", "--only", CELL, "--", "modprobe quizmatrix_hello")
    assert done.returncode == 1
    assert b"not found" in done.stderr
