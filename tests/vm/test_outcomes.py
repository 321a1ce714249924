"""Every outcome, caused on purpose."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.vm.conftest import ARCHES, Quizmatrix, Sweep


class Case(NamedTuple):
    """A command and its expected outcome."""

    command: tuple[str, ...]
    outcome: str
    exit_code: int | None
    detail: str = ""
    options: tuple[str, ...] = ()
    status: int = 1


# No signal ends PID 1; overwriting its program with zeros does.
OVERWRITE_INIT = """set -- $(sed -n 's/^\\([0-9a-f]*\\)-\\([0-9a-f]*\\) r-xp .*/\\1 \\2/p;T;q' /proc/1/maps)
dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((0x$1 / 4096)) count=$(((0x$2 - 0x$1) / 4096)) conv=notrunc"""

CASES = {
    "passes": Case(("true",), "passed", 0, status=0),
    "exits-3": Case(("exit 3",), "failed", 3),
    "is-killed": Case(("kill -KILL $$",), "failed", 137, "killed by SIGKILL"),
    "is-interrupted": Case(("kill -INT $$; sleep 100",), "failed", 130, "killed by SIGINT"),
    "exits-137": Case(("exit 137",), "failed", 137, ""),
    "is-not-found": Case(("no-such-program", "x"), "failed", 127),
    "is-not-executable": Case(("/etc/passwd", "x"), "failed", 126),
    "is-slow": Case(("sleep 1000",), "timed-out", None, "still running", ("--timeout", "500ms")),
    "panics": Case(("echo c >/proc/sysrq-trigger; sleep 100",), "panicked", None, "sysrq"),
    # No signal ends PID 1; SIGTERM asks it to restart, as reboot(8) does.
    "ends-init": Case(("kill -TERM 1; sleep 100",), "failed", None, "restarted or powered off"),
    "kills-init": Case((f"{OVERWRITE_INIT}; kill -CHLD 1; sleep 100",), "panicked", None, "init died"),
    "splats": Case(("echo '<4>WARNING: CPU: 0 PID: 1 at here.c:1' >/dev/kmsg",), "splat", 0, "here.c"),
    "restarts": Case(("reboot -f; sleep 100",), "failed", None, "restarted or powered off"),
    "resets": Case(("echo b >/proc/sysrq-trigger; sleep 100",), "failed", None, "restarted or powered off"),
    "switches-off": Case(("poweroff -f; sleep 100",), "failed", None, "restarted or powered off"),
    "fills-its-memory": Case(("tail /dev/zero",), "failed", 137, "ran out of memory"),
    "writes-without-end": Case(("yes",), "timed-out", None, "still running", ("--timeout", "500ms")),
    "never-boots": Case(
        ("true",), "boot-failed", None, "no sign of life", ("--boot-timeout", "20ms"), status=125
    ),
    "has-no-kernel": Case(("true",), "unprepared", None, "not in the cache", ("-k", "4.4"), status=125),
}


# Cases about what comes before a guest is up.
COLD_ONLY = {"never-boots", "has-no-kernel"}
STARTS = ("cold", "warm")
MEMORY = ("--memory", "256M")


@pytest.fixture(scope="module", autouse=True)
def templates() -> None:
    """Templates of the guests, which the first one of each kind leaves."""
    argv = [sys.executable, "-m", "quizmatrix", "run", "-k", "6.1", "-a", ",".join(ARCHES), *MEMORY]
    subprocess.run([*argv, "--", "true"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "start"), [(name, start) for name in CASES for start in STARTS[: 1 if name in COLD_ONLY else 2]]
)
def test_outcome(name: str, start: str, sweep: Callable[..., Sweep]) -> None:
    case = CASES[name]
    done = sweep(*case.command, options=(*MEMORY, f"--{start}", *case.options))
    cells = [cell for cell in done.results["cells"] if cell["kernel"] == "6.1" or name == "has-no-kernel"]
    seen = {cell["cell"]: (cell["outcome"], cell["exit_code"], cell["detail"]) for cell in cells}
    if name == "has-no-kernel":
        seen = {cell: verdict for cell, verdict in seen.items() if cell.startswith("4.4")}
    assert len(seen) == len(ARCHES)
    if name not in COLD_ONLY:
        assert {cell["start"] for cell in cells} == {start}
    for verdict in seen.values():
        assert verdict[:2] == (case.outcome, case.exit_code), seen
        assert case.detail in verdict[2], seen
    assert done.status == case.status
    assert done.results["exit_code"] == case.status


def test_one_panic_on_two_architectures_is_told_of_once(sweep: Callable[..., Sweep]) -> None:
    done = sweep("echo c >/proc/sysrq-trigger; sleep 100", options=("--memory", "256M"))
    found = [cell["findings"] for cell in done.results["cells"]]
    assert [(one["kind"], one["count"], one["allowed"]) for (one,) in found] == [("panic", 1, False)] * 2
    (fingerprint,) = {one["fingerprint"] for (one,) in found}
    assert done.report.count(f"fingerprint: {fingerprint} (panic)") == 1
    assert done.report.count("  write_sysrq_trigger+0x") == 1
    for cell in done.results["cells"]:
        kept = json.loads((done.folder / cell["cell"] / "findings.json").read_bytes())
        assert "write_sysrq_trigger" in kept[0]["functions"]
        assert "sysrq triggered crash" in kept[0]["block"][0]


MATRIX = """
kernels = ["6.1"]
arches = ["x86_64", "s390x"]
memory = "256M"
allow-splats = ['at known\\.c']
[arch.s390x]
splat = "warn"
"""


def test_a_matrix_says_what_a_finding_means(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MATRIX)
    folder = tmp_path / "run"
    command = 'for f in known new; do echo "<4>WARNING: CPU: 0 PID: 1 at $f.c:1" >/dev/kmsg; done'
    argv = ["run", str(tmp_path / "m.toml"), "--offline", "-v", "--output", str(folder), "--", command]
    done = quizmatrix(*argv)
    cells = {cell["arch"]: cell for cell in json.loads((folder / "results.json").read_bytes())["cells"]}
    assert {arch: cell["outcome"] for arch, cell in cells.items()} == {"x86_64": "splat", "s390x": "passed"}
    for cell in cells.values():
        assert [one["allowed"] for one in cell["findings"]] == [True, False]
    report = done.stdout.decode()
    assert "6.1-s390x (passed): the kernel complained" in report
    assert "allowed: 6.1-x86_64, 6.1-s390x: WARNING: CPU: 0 PID: 1 at known.c:1" in report
    assert done.returncode == 1
