"""Commands that hang: in user space, in the kernel, and with the interrupts off; the verdict says where."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import KERNEL, Quizmatrix

# Two that Debian ships, and one that is built here.
CELLS = ("6.1-x86_64", "6.12-s390x", "debian-source:6.12-ppc64")

# Parameter `how`: "deadlock" or "spin".
MODULE = """
#include <linux/module.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/completion.h>

static char *how = "deadlock";
module_param(how, charp, 0);
static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);
static DECLARE_COMPLETION(has_second);

static noinline void take_first(void)
{
	mutex_lock(&first);
	mutex_unlock(&first);
}
static int other(void *unused)
{
	mutex_lock(&second);
	complete(&has_second);
	take_first();
	mutex_unlock(&second);
	return 0;
}
static noinline void take_second(void)
{
	mutex_lock(&second);
	mutex_unlock(&second);
}
static noinline void spin(void)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}
static int __init start(void)
{
	if (!strcmp(how, "spin"))
		spin();
	mutex_lock(&first);
	kthread_run(other, NULL, "other");
	wait_for_completion(&has_second);
	take_second();
	mutex_unlock(&first);
	return 0;
}
module_init(start);
MODULE_LICENSE("GPL");
"""

FROZEN = """set -e
modprobe ext4
mke2fs /dev/quizb0 60000
mkdir /tmp/disk
mount /dev/quizb0 /tmp/disk
fsfreeze --freeze /tmp/disk
echo >/tmp/disk/file
"""

Hung = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def hung(quizmatrix: Quizmatrix, tmp_path: Path) -> Hung:
    """Runs a command that hangs; the results by cell."""

    def run(cells: tuple[str, ...], *words: str) -> dict[str, dict[str, Any]]:
        output = tmp_path / "run"
        shutil.rmtree(output, ignore_errors=True)
        argv = ["run", "--only", ",".join(cells), "--timeout", "0.4", "--output", str(output)]
        done = quizmatrix(*argv, *words)
        assert done.returncode == 1, done.stderr
        results = json.loads((output / "results.json").read_bytes())["cells"]
        assert {one["cell"]: one["outcome"] for one in results} == dict.fromkeys(cells, "timed-out")
        return {one["cell"]: one for one in results}

    return run


@pytest.fixture
def module(quizmatrix: Quizmatrix, tmp_path: Path) -> Iterator[None]:
    """The module above, for the guests of CELLS."""
    folder = tmp_path / "hangs"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m := quizmatrix_hang.o\n")
    (folder / "quizmatrix_hang.c").write_text(MODULE)
    try:
        done = quizmatrix("module", "build", str(folder), "--only", ",".join(CELLS))
        assert done.returncode == 0, done.stderr
        yield
    finally:
        quizmatrix("module", "remove", str(folder))


@pytest.mark.timeout(1200)
def test_a_loop_in_user_space(hung: Hung) -> None:
    for one in hung(CELLS, "--", "while :; do :; done").values():
        assert one["detail"].endswith(": sh runs in user space")


def test_a_write_to_a_frozen_file_system(hung: Hung, tmp_path: Path) -> None:
    cells = (f"{KERNEL}-x86_64", f"{KERNEL}-s390x")
    found = hung(cells, "-p", "blockdev", "--on-timeout", "dump", "--", FROZEN)
    for one in found.values():
        assert "sh waits in percpu_rwsem_wait (called by mnt_want_write, path_openat)" in one["detail"]
    # The same fingerprint on both, as any finding.
    assert len({one["findings"][-1]["fingerprint"] for one in found.values()}) == 1
    for cell in cells:
        with (tmp_path / f"run/{cell}/artifacts/vmcore").open("rb") as file:
            assert b"KDUMP" in file.read(1 << 16)
    # What waits is on the console, too, where its driver has sent it.
    assert b"sysrq: Show Blocked State" in (tmp_path / f"run/{cells[0]}/console.log").read_bytes()


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("module")
def test_a_module_that_hangs(hung: Hung) -> None:
    """Two threads wait for each other; one loops with the interrupts off, and its guest answers nothing."""
    found = hung(CELLS, "--", "modprobe quizmatrix_hang")
    for one in found.values():
        assert "modprobe waits in take_second (called by start, do_one_initcall)" in one["detail"]
        assert "; other waits in take_first (called by other" in one["detail"]
    assert len({one["findings"][-1]["fingerprint"] for one in found.values()}) == 1

    # The kernel says where it is if an NMI makes it, else QEMU says it.
    found = hung(CELLS, "--", "modprobe quizmatrix_hang how=spin")
    for cell in (CELLS[0], CELLS[2]):
        # The second where this host has the kernel's debug information.
        pattern = r"the guest does not answer(, and is|: modprobe runs) in spin \(called by "
        assert re.search(pattern, found[cell]["detail"])
        assert [finding["kind"] for finding in found[cell]["findings"]] == ["hang"]
    # Its address is in the module, whose symbols the host does not have, unless it has the kernel's.
    pattern = r"the guest does not answer(; CPU 0: 0x3ff|: modprobe runs in spin \()"
    assert re.search(pattern, found[CELLS[1]]["detail"])
