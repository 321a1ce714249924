"""What drgn reads in the memory of Debian's kernels, with their debug information (`make check-all`)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.test_hang import MODULE

# Seconds; of 1.3 GB to fetch, and four emulated guests.
LIMIT = 1800

CELLS = ("6.1-x86_64", "6.1-s390x")

pytestmark = pytest.mark.timeout(LIMIT)

PANIC = ("-p", "debug", "--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100")
HANG = ("--timeout", "2", "--on-timeout", "dump", "--", "sh", "-c", "while :; do :; done")


def quizmatrix(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "quizmatrix", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    """The debug information of both kernels."""
    assert quizmatrix("prepare", "--only", ",".join(CELLS)).returncode == 0
    done = quizmatrix("kernel", "debug-info", *CELLS)
    assert done.returncode == 0, done.stderr


def reports(folder: Path, *words: str) -> dict[str, str]:
    """Run a command in both cells; the texts of crash.txt."""
    done = quizmatrix("run", "--only", ",".join(CELLS), "--output", str(folder), *words)
    assert "what drgn reads in its memory is in artifacts/crash.txt" in done.stdout, done.stdout + done.stderr
    return {cell: (folder / cell / "artifacts/crash.txt").read_text() for cell in CELLS}


def test_a_panic_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    found = reports(folder, *PANIC)
    for text in found.values():
        assert text.startswith("The task in which it died\n")
        assert " sh\n" in text.splitlines(keepends=True)[2]
        # Of tasks that sleep, with the source's lines.
        assert "(kernel/kthread.c:" in text
        assert "Kernel panic - not syncing: sysrq triggered crash" in text
        assert " dentry\n" in text
        assert "not read" not in text
        died = text.partition("What the CPUs were running")[0]
        assert " sysrq_handle_crash (drivers/tty/sysrq.c:" in died
        assert "\n        count = 2\n" in died
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(prog.crashed_thread().object.comm.string_(), sys.argv[1:])\n")
    for cell in CELLS:
        # Finding's lines, too.
        assert "drivers/tty/sysrq.c:" in (folder / cell / "findings.json").read_text()
        done = quizmatrix("debug", f"{folder}/{cell}", "--", str(script), "a word")
        assert done.stdout == "b'sh' ['a word']\n", done.stderr


def test_a_hang_is_read(tmp_path: Path) -> None:
    for text in reports(tmp_path / "run", *HANG).values():
        # Most often the command; it may be the agent, which has told before what the command was doing.
        assert text.startswith("What the CPUs were running\n--------------------------\nCPU 0: ")
        assert " sh (R)\n" in text


def test_a_guest_that_answers_nothing_is_read_unasked(tmp_path: Path) -> None:
    """A module loops with the interrupts off: the same finding on both, with its source's lines."""
    module, folder = tmp_path / "hangs", tmp_path / "run"
    module.mkdir()
    (module / "Kbuild").write_text("obj-m := quizmatrix_hang.o\n")
    (module / "quizmatrix_hang.c").write_text(MODULE)
    try:
        assert quizmatrix("module", "build", str(module), "--only", ",".join(CELLS)).returncode == 0
        found = reports(folder, "--timeout", "0.4", "--", "modprobe", "quizmatrix_hang", "how=spin")
    finally:
        quizmatrix("module", "remove", str(module))
    results = json.loads((folder / "results.json").read_bytes())["cells"]
    for one in results:
        said = "the guest does not answer: modprobe runs in spin (called by start, do_one_initcall)"
        assert one["outcome"] == "timed-out"
        assert said in one["detail"]
        assert not (folder / one["cell"] / "artifacts/vmcore").exists()
        assert not (folder / one["cell"] / "vmcore").exists()
        assert "/quizmatrix_hang.c:" in found[one["cell"]]
    assert len({finding["fingerprint"] for one in results for finding in one["findings"]}) == 1
