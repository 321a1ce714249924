"""The lines of a module, and of a kernel, that ran in guests on both byte orders (`make check-all`)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Seconds; of three kernels, and emulated guests.
LIMIT = 2 * 3600

CELLS = ("debian-source:6.1-x86_64+gcov_modules", "debian-source:6.1-s390x+gcov_modules")

pytestmark = pytest.mark.timeout(LIMIT)

SOURCE = """\
#include <linux/module.h>
static u32 number = 1;
static int __init start(void)
{
	if (READ_ONCE(*(u8 *)&number))
		pr_info("the low byte is first\\n");
	else
		pr_info("the high byte is first\\n");
#ifdef __BIG_ENDIAN
	number++;
#endif
	return 0;
}
static void __exit stop(void)
{
	number = 0;
}
module_init(start);
module_exit(stop);
MODULE_LICENSE("GPL");
"""


def quizmatrix(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "quizmatrix", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def order(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A module that is built for both cells, and counts."""
    folder = tmp_path_factory.mktemp("sources") / "order"
    folder.mkdir()
    (folder / "order.c").write_text(SOURCE)
    (folder / "Kbuild").write_text("obj-m := order.o\n")
    done = quizmatrix("module", "build", str(folder), "--only", ",".join(CELLS), "--make", "GCOV_PROFILE=y")
    assert done.returncode == 0, done.stdout + done.stderr


def covered(folder: Path, cells: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ("run", "--only", cells, "--output", str(folder / "run"), "--coverage", str(folder / "page"))
    return quizmatrix(*argv, "--", *words)


def places(page: Path) -> dict[str, list[tuple[int, int]]]:
    """The lines of the module that only some cells reach."""
    groups: list[dict[str, Any]] = json.loads((page / "differences.json").read_bytes())
    return {
        f"{group['words']}, {group['elsewhere']}": [
            (place["first"], place["last"]) for place in group["places"] if place["file"] == "order/order.c"
        ]
        for group in groups
    }


def reached(page: Path) -> dict[int, int]:
    """The counts of the module's lines, of all cells together."""
    files = json.loads((page / "coverage.json").read_bytes())["files"]
    (own,) = (file for file in files if file["file"] == "order/order.c")
    return {line["line_number"]: line["count"] for line in own["lines"]}


def test_the_page_tells_what_only_one_byte_order_reaches(tmp_path: Path) -> None:
    done = covered(tmp_path, ",".join(CELLS), "modprobe", "order")
    assert done.returncode == 0, done.stdout + done.stderr
    page = tmp_path / "page"
    assert places(page) == {
        "only on x86_64, not reached": [(6, 6)],
        "only on s390x, not reached": [(8, 8)],
        "only on s390x, not compiled": [(10, 10)],
    }
    counts = reached(page)
    assert counts[5] == 2
    assert counts[6] == counts[8] == 1
    assert counts[16] == 0
    assert "only on s390x" in (page / "index.html").read_text()
    assert (page / "lines/index.html").is_file()
    assert "\nDA:5,2," in (page / "coverage.lcov").read_text()
    assert f"coverage: {page}/index.html" in done.stderr


def test_a_cell_that_panicked_is_told_of_and_the_other_shown(tmp_path: Path) -> None:
    panics = '[ "$QUIZMATRIX_ARCH" = x86_64 ] || echo c >/proc/sysrq-trigger'
    done = covered(tmp_path, ",".join(CELLS), "sh", "-c", f"modprobe order; modprobe -r order; {panics}")
    assert f"{CELLS[1]} is not counted: panicked" in done.stderr
    # Of a module that was removed, too.
    assert reached(tmp_path / "page")[16] == 1


def test_a_whole_kernel_is_counted(tmp_path: Path) -> None:
    done = covered(tmp_path, "debian-source:6.1-x86_64+gcov", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    files = json.loads((tmp_path / "page/coverage.json").read_bytes())["files"]
    (main,) = (file for file in files if file["file"].endswith("/init/main.c"))
    counts = [line["count"] for line in main["lines"]]
    assert any(counts)
    assert not all(counts)
