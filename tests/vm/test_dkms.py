"""Modules with a dkms.conf in guests of Debian's own kernels: one of Debian's, and one that oopses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import ARCHES, KERNEL, Quizmatrix

CELLS = ",".join(f"{KERNEL}-{arch}" for arch in ARCHES)

CELL = f"{KERNEL}-{ARCHES[0]}"

# Seconds; where the cache lacks them, headers and compilers of two architectures are fetched.
pytestmark = pytest.mark.timeout(900)

CONF = """
PACKAGE_NAME=quizmatrix-oops
PACKAGE_VERSION=1
MAKE="make KVER=$kernelver"
BUILT_MODULE_NAME=quizmatrix_oops
DEST_MODULE_LOCATION=/extra
"""

# It asks for the running kernel, as many do.
MAKEFILE = """
obj-m := quizmatrix_oops.o
all:
\t$(MAKE) -C /lib/modules/$(shell uname -r)/build M=$(CURDIR) modules
"""

OOPS = """
#include <linux/module.h>
static int __init oops(void)
{
	int *volatile nowhere = NULL;

	return *nowhere;
}
module_init(oops);
MODULE_LICENSE("GPL");
"""


@pytest.fixture
def removed(quizmatrix: Quizmatrix) -> Iterator[list[str]]:
    """Names of modules that are removed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        quizmatrix("module", "remove", name)


def test_a_package_of_debians(quizmatrix: Quizmatrix, removed: list[str]) -> None:
    done = quizmatrix("module", "build", "apt:vpoll-dkms/bookworm", "--only", CELLS)
    assert done.returncode == 0, done.stderr
    removed.append("vpoll")
    script = "modprobe vpoll && test -c /dev/vpoll && modinfo -F filename vpoll"
    done = quizmatrix("run", "--only", CELLS, "--", script)
    assert done.returncode == 0, done.stdout


def test_a_module_that_oopses(quizmatrix: Quizmatrix, removed: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "quizmatrix-oops"
    folder.mkdir()
    (folder / "dkms.conf").write_text(CONF)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "quizmatrix_oops.c").write_text(OOPS)
    done = quizmatrix("module", "build", str(folder), "--only", CELL)
    assert done.returncode == 0, done.stderr
    removed.append("quizmatrix_oops")
    done = quizmatrix("run", "--only", CELL, "--json", "results.json", "--", "modprobe quizmatrix_oops")
    assert done.returncode == 1
    (cell,) = json.loads((tmp_path / "here/results.json").read_bytes())["cells"]
    assert cell["outcome"] == "panicked"
    assert "NULL pointer dereference" in cell["detail"]
