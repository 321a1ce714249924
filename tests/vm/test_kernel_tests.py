"""Test results that a kernel prints: KTAP of a user's module, from the console and from dmesg."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Quizmatrix, Sweep

CELL = "debian-source:6.1-x86_64"

# Seconds; two cores need about four minutes for the kernel.
LIMIT = 3000

pytestmark = [pytest.mark.timeout(LIMIT), pytest.mark.usefixtures("prepared")]

# Output like KUnit's for a suite, with the module's name before the lines at the top level.
KTAP = """
#include <linux/module.h>
static bool works;
module_param(works, bool, 0);
static int __init frob(void)
{
	pr_info("KTAP version 1\\n1..2\\n");
	pr_info("    KTAP version 1\\n");
	pr_info("    # Subtest: first\\n");
	pr_info("    1..2\\n");
	pr_info("    ok 1 one\\n");
	pr_info("    # two: what it says\\n");
	pr_info("    %s 2 two\\n", works ? "ok" : "not ok");
	pr_info("%s 1 first\\n", works ? "ok" : "not ok");
	pr_info("ok 2 second # SKIP no frobs\\n");
	return 0;
}
static void __exit unfrob(void)
{
}
module_init(frob);
module_exit(unfrob);
MODULE_LICENSE("GPL");
"""


# Tests printed by printk of any kernel, and kselftest's output beside it.
SAID = r"""
said() { for line; do printf '%s\n' "$line" >/dev/kmsg; done; }
said 'KTAP version 1' 1..2 '  KTAP version 1' '  1..2' '  ok 1 fine' '  not ok 2 frob' 'not ok 1 inner'
said 'ok 2 outer'
printf '%s\n' 'TAP version 13' 1..1 '# selftests: x: y' '# TAP version 13' '# 1..2' '# ok 1 a' '# ok 2 b'
echo ok 1 y
printf 'half a line without its end' >/dev/console
said 'KTAP version 1' 1..1 'not ok 1 behind'
"""


def test_what_debians_kernels_and_kselftest_print(sweep: Callable[..., Sweep]) -> None:
    found = sweep(SAID)
    assert found.status == 1
    for cell in found.cells.values():
        assert (cell["outcome"], cell["detail"]) == ("failed", "2 of 6 tests failed")
        listed = json.loads((found.folder / cell["cell"] / "subtests.json").read_bytes())
        assert [(test["name"], test["outcome"]) for test in listed] == [
            ("y/a", "passed"),
            ("y/b", "passed"),
            ("inner/fine", "passed"),
            ("inner/frob", "failed"),
            ("outer", "passed"),
            ("behind", "failed"),
        ]
    assert "frob" in found.report


def test_the_results_of_a_module(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    folder = tmp_path / "ktap"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m := quizmatrix_ktap.o\n")
    (folder / "quizmatrix_ktap.c").write_text(KTAP)

    def run(*command: str) -> tuple[int, str, dict[str, Any], list[tuple[str, str]]]:
        output = tmp_path / "run"
        done = quizmatrix("run", "--only", CELL, "--output", str(output), "--", *command)
        (cell,) = json.loads((output / "results.json").read_bytes())["cells"]
        (place,) = output.glob("*/subtests.json")
        tests = json.loads(place.read_bytes())
        named = [(test["name"], test["outcome"]) for test in tests]
        output.rename(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        return done.returncode, done.stdout.decode(), cell, named

    rows = [("first/one", "passed"), ("first/two", "failed"), ("second", "skipped")]
    try:
        done = quizmatrix("module", "build", str(folder), "--only", CELL)
        assert done.returncode == 0, done.stderr
        # The module loads, and only the console says that its tests fail.
        status, printed, cell, named = run("modprobe", "quizmatrix_ktap")
        assert (status, printed, cell["exit_code"], named) == (1, "", 0, rows)
        assert (cell["outcome"], cell["detail"]) == ("failed", "1 of 3 tests failed")
        # The console and two dmesg(1) show the same tests; a partial dmesg does not replace the whole.
        script = "modprobe quizmatrix_ktap; dmesg; dmesg -r | head -n -1"
        status, printed, cell, named = run(script)
        assert printed.count("ok 1 one") == 2
        assert (status, cell["detail"], named) == (1, "1 of 3 tests failed", rows)
        # If the console is silenced, the command's output counts.
        status, _, cell, named = run("dmesg -n 1; modprobe quizmatrix_ktap; dmesg")
        assert (status, cell["detail"], named) == (1, "1 of 3 tests failed", rows)
        # Loaded as a test that passes, then loaded again as one that fails.
        status, _, cell, named = run("modprobe", "quizmatrix_ktap", "works=1")
        assert (status, cell["outcome"], cell["subtests"]) == (0, "passed", {"passed": 2, "skipped": 1})
        again = "modprobe quizmatrix_ktap works=1; rmmod quizmatrix_ktap; modprobe quizmatrix_ktap; dmesg"
        status, _, cell, named = run(again)
        assert cell["detail"] == "1 of 6 tests failed"
        assert ("first/two (2)", "failed") in named
    finally:
        quizmatrix("module", "remove", str(folder))
