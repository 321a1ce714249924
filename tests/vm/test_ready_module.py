"""A module with a thread and a build program of its own, in guests of the kernels that Debian ships."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix

# A Debian 12's own compiler fits the first one. The others need newer ones, which need newer C libraries.
CELLS = "6.1-x86_64,6.12-s390x,newest-x86_64"

MODULE = """
#include <linux/module.h>
#include <linux/kthread.h>
#include <linux/delay.h>
#include "made.h"
static int answer = 1;
module_param(answer, int, 0444);
static struct task_struct *task;
static int work(void *data)
{
	pr_info("the answer is %d, with glibc %s\\n", answer, GLIBC);
	while (!kthread_should_stop())
		msleep(10);
	return 0;
}
static int __init start(void)
{
	task = kthread_run(work, NULL, "quizmatrix");
	return PTR_ERR_OR_ZERO(task);
}
static void __exit stop(void)
{
	kthread_stop(task);
}
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
"""

# Runs while the module is built, with the C library that it was linked to.
MAKER = """
#include <gnu/libc-version.h>
#include <stdio.h>
int main(void)
{
	printf("#define GLIBC \\"%s\\"\\n", gnu_get_libc_version());
	return 0;
}
"""

KBUILD = """
obj-m := quizmatrix_ready.o
hostprogs := maker
clean-files := made.h
ccflags-y := -I$(obj)
$(obj)/made.h: $(obj)/maker
	$(obj)/maker > $@
$(obj)/quizmatrix_ready.o: $(obj)/made.h
"""


@pytest.mark.timeout(1200)
def test_a_module_for_debians_kernels(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """Built from the headers and by the compiler of the kernel's own suite; `run` boots the same kernel."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in (("Kbuild", KBUILD), ("quizmatrix_ready.c", MODULE), ("maker.c", MAKER)):
        (folder / name).write_text(text)
    try:
        done = quizmatrix("module", "build", str(folder), "--only", CELLS)
        assert done.returncode == 0, done.stderr
        assert f"quizmatrix run --only {CELLS} -- modprobe quizmatrix_ready" in done.stdout.decode()
        script = "modprobe quizmatrix_ready answer=42 && dmesg | grep -o 'the answer.*'"
        output = tmp_path / "run"
        done = quizmatrix("run", "--only", CELLS, "--output", str(output), "--", script)
        assert done.returncode == 0, done.stderr
        said = {cell: (output / cell / "stdout").read_text() for cell in CELLS.split(",")}
        # sid's C library changes.
        assert re.fullmatch(r"the answer is 42, with glibc 2\.\d+\n", said.pop("newest-x86_64"))
        assert said == {
            "6.1-x86_64": "the answer is 42, with glibc 2.36\n",
            "6.12-s390x": "the answer is 42, with glibc 2.41\n",
        }
        # What `kernel show` prints builds it by hand, too.
        shown = quizmatrix("kernel", "show", "6.12-s390x").stdout.decode()
        (line,) = [line for line in shown.splitlines() if line.startswith("modules ")]
        make = ["sh", "-c", line.removeprefix("modules ")]
        subprocess.run(make, cwd=folder, check=True, capture_output=True)
        assert (folder / "quizmatrix_ready.ko").is_file()
    finally:
        quizmatrix("module", "remove", str(folder))
