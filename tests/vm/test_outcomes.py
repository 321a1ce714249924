"""Every outcome, by causing it."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.vm.conftest import ARCHES, Sweep


class Case(NamedTuple):
    """A command and what is to be said of it."""

    command: tuple[str, ...]
    outcome: str
    exit_code: int | None
    detail: str = ""
    options: tuple[str, ...] = ()
    status: int = 1


CASES = {
    "passes": Case(("true",), "passed", 0, status=0),
    "exits-3": Case(("exit 3",), "failed", 3),
    "is-killed": Case(("kill -KILL $$",), "failed", 137, "killed by SIGKILL"),
    "exits-137": Case(("exit 137",), "failed", 137, ""),
    "is-not-found": Case(("no-such-program", "x"), "failed", 127),
    "is-not-executable": Case(("/etc/passwd", "x"), "failed", 126),
    "is-slow": Case(("sleep 1000",), "timed-out", None, "still running", ("--timeout", "500ms")),
    "panics": Case(("echo c >/proc/sysrq-trigger; sleep 100",), "panicked", None, "sysrq"),
    "kills-init": Case(("kill -TERM 1; sleep 100",), "panicked", None, "init died"),
    "splats": Case(("echo '<4>WARNING: CPU: 0 PID: 1 at here.c:1' >/dev/kmsg",), "splat", 0, "here.c"),
    "restarts": Case(("reboot -f; sleep 100",), "failed", None, "restarted or powered off"),
    "switches-off": Case(("poweroff -f; sleep 100",), "failed", None, "restarted or powered off"),
    "fills-its-memory": Case(("tail /dev/zero",), "failed", 137, "ran out of memory"),
    "writes-without-end": Case(("yes",), "timed-out", None, "still running", ("--timeout", "500ms")),
    "never-boots": Case(
        ("true",), "boot-failed", None, "no sign of life", ("--boot-timeout", "20ms"), status=125
    ),
    "has-no-kernel": Case(("true",), "unprepared", None, "not in the cache", ("-k", "4.4"), status=125),
}


@pytest.mark.parametrize("name", CASES)
def test_outcome(name: str, sweep: Callable[..., Sweep]) -> None:
    case = CASES[name]
    done = sweep(*case.command, options=("--memory", "256M", *case.options))
    cells = [cell for cell in done.results["cells"] if cell["kernel"] == "6.1" or name == "has-no-kernel"]
    seen = {cell["cell"]: (cell["outcome"], cell["exit_code"], cell["detail"]) for cell in cells}
    if name == "has-no-kernel":
        seen = {cell: verdict for cell, verdict in seen.items() if cell.startswith("4.4")}
    assert len(seen) == len(ARCHES)
    for verdict in seen.values():
        assert verdict[:2] == (case.outcome, case.exit_code), seen
        assert case.detail in verdict[2], seen
    assert done.status == case.status
    assert done.results["exit_code"] == case.status
