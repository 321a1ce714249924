"""A kernel built here from source: big-endian ppc64, for which Debian has no kernel."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix

CELL = "debian-source:6.12-ppc64"
pytestmark = pytest.mark.usefixtures("prepared")

MODULE = """
#include <linux/module.h>
static int __init hello(void)
{
	pr_info("hello from a module\\n");
	return 0;
}
module_init(hello);
MODULE_LICENSE("GPL");
"""

# Seconds; two cores need about seven minutes for the kernel.
LIMIT = 3000


@pytest.mark.timeout(LIMIT)
def test_a_built_kernel_runs_commands(quizmatrix: Quizmatrix) -> None:
    script = 'uname -m; printf "\\1\\2" | od -An -tx2; hostname; ls /lib/modules; exit 3'
    done = quizmatrix("run", "--only", CELL, "--", script)
    assert done.returncode == 3, done.stderr
    machine, order, name, release = done.stdout.decode().split()
    assert (machine, order, name) == ("ppc64", "0102", CELL.replace(".", "_"))
    assert release.startswith("6.12.")


@pytest.mark.timeout(LIMIT)
def test_what_is_built_is_ready_at_once(quizmatrix: Quizmatrix) -> None:
    assert "common.config:" in shown(quizmatrix)


def shown(quizmatrix: Quizmatrix) -> str:
    """The output of `kernel show`, after a `kernel build` that has nothing to do."""
    done = quizmatrix("kernel", "build", "6.12", "-a", "ppc64")
    assert done.returncode == 0
    (line,) = done.stdout.decode().splitlines()
    assert line.startswith(f"{CELL}: ready: 6.12.")
    return quizmatrix("kernel", "show", line.rpartition(" ")[2]).stdout.decode()


@pytest.mark.timeout(LIMIT)
def test_a_module_built_against_it_is_loaded(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "Kbuild").write_text("obj-m := hello.o\n")
    (here / "hello.c").write_text(MODULE)
    show = shown(quizmatrix)
    for step in ("modules", "install"):
        (command,) = re.findall(f"^{step} +(.*)", show, re.MULTILINE)
        made = subprocess.run(["sh", "-c", command], cwd=here, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
    (layer,) = re.findall(r"INSTALL_MOD_PATH=(\S+)", show)
    (installed,) = Path(layer).rglob("hello.ko")
    try:
        done = quizmatrix("run", "--only", CELL, "--", "modprobe hello && modprobe dm_mod && dmesg")
    finally:
        installed.unlink()
    assert done.returncode == 0, done.stderr
    assert b"hello from a module" in done.stdout
    assert quizmatrix("run", "--only", CELL, "--", "modprobe hello").returncode == 1


@pytest.mark.timeout(LIMIT)
def test_a_panic_is_a_panic_here_too(quizmatrix: Quizmatrix) -> None:
    done = quizmatrix("run", "--only", CELL, "--", "echo c >/proc/sysrq-trigger; sleep 100")
    assert done.returncode == 1
    assert b"panicked: sysrq triggered crash" in done.stderr
