"""A module that needs symbols of another: one command builds both, one modprobe loads both."""

import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix

CELL = "debian-source:6.1-x86_64"

# Seconds; two cores need about four minutes for the kernel.
LIMIT = 3000

pytestmark = [pytest.mark.timeout(LIMIT), pytest.mark.usefixtures("prepared")]

BASE = """
#include <linux/module.h>
#include "quizmatrix_base.h"
int quizmatrix_answer(void)
{
	return ANSWER;
}
EXPORT_SYMBOL_GPL(quizmatrix_answer);
MODULE_LICENSE("GPL");
"""

USER = """
#include <linux/module.h>
#include "quizmatrix_base.h"
static int __init ask(void)
{
	pr_info("the answer is %d of %d\\n", quizmatrix_answer(), ANSWER);
	return 0;
}
static void __exit bye(void)
{
}
module_init(ask);
module_exit(bye);
MODULE_LICENSE("GPL");
"""


def test_a_module_uses_a_symbol_and_a_header_of_another(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    base, user = tmp_path / "base", tmp_path / "user"
    for folder, name, source in ((base, "quizmatrix_base", BASE), (user, "quizmatrix_user", USER)):
        folder.mkdir()
        (folder / "Kbuild").write_text(f"obj-m := {name}.o\nccflags-y := -I$(src)/../base\n")
        (folder / f"{name}.c").write_text(source)
    header = base / "quizmatrix_base.h"
    header.write_text("#define ANSWER 42\nint quizmatrix_answer(void);\n")

    def build(*folders: Path) -> subprocess.CompletedProcess[bytes]:
        return quizmatrix("module", "build", *map(str, folders), "--only", CELL, "-q")

    def answer() -> str:
        done = quizmatrix(
            "run", "--only", CELL, "--", "modprobe quizmatrix_user && dmesg | grep -o 'the answer.*'"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    try:
        done = build(user)
        assert done.returncode == 125
        assert b"quizmatrix_base.h: No such file" in done.stderr
        # The order of the folders does not matter.
        done = build(user, base)
        assert done.returncode == 0, done.stderr
        assert answer() == "the answer is 42 of 42\n"
        header.write_text("#define ANSWER 43\nint quizmatrix_answer(void);\n")
        done = build(base, user)
        assert done.returncode == 0, done.stderr
        assert answer() == "the answer is 43 of 43\n"
        # If the module with the symbol was built before, the error names it, but it is not used.
        (user / "quizmatrix_base.h").write_text(header.read_text())
        done = build(user)
        assert done.returncode == 125
        assert f"It is in {base}: quizmatrix module build {base} {user}" in done.stderr.decode()
    finally:
        for folder in (base, user):
            quizmatrix("module", "remove", str(folder))
