"""VMs end when quizmatrix or a QEMU process is stopped or killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Quizmatrix


@pytest.fixture
def runner(tmp_path: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A run of two cells that leave something in /shared and sleep, once both are running."""
    # A background job of a script ignores SIGINT, and quizmatrix would inherit that.
    command = ["env", "--default-signal=INT,HUP,TERM", sys.executable, "-m", "quizmatrix", "run"]
    command += ["-k", "6.1", "-a", "x86_64,s390x", "--offline"]
    command += ["-j", "2", "--output", "run", "--"]
    command += ["ln -s /etc/passwd /shared/secret; touch /shared/made; sleep 1000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        started = 0
        while started < 2:
            line = process.stderr.readline()
            assert line, "the run ended before both commands were running"
            started += line.rstrip().endswith(b": running")
        while len(list(tmp_path.glob("run/*/artifacts/made"))) < 2:
            time.sleep(0.05)
        yield process
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def children(pid: int) -> list[int]:
    """The QEMU processes of a quizmatrix process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 10) -> bool:
    """Whether all processes end within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(is_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run/results.json").read_bytes())
    return found


def test_kill_9_leaves_no_vm(runner: subprocess.Popen[bytes], tmp_path: Path) -> None:
    machines = children(runner.pid)
    assert len(machines) == 2
    runner.kill()
    assert wait_until_gone(machines)
    assert results(tmp_path)["finished"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_and_reports(
    number: signal.Signals, runner: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    machines = children(runner.pid)
    runner.send_signal(number)
    output, _ = runner.communicate(timeout=20)
    assert runner.returncode == 130
    assert not any(is_alive(pid) for pid in machines)
    assert b"2 cancelled" in output
    assert len(list(tmp_path.glob("run/*/artifacts/secret"))) == 2
    assert not [path for path in tmp_path.glob("run/*/artifacts/secret") if path.is_symlink()]
    assert results(tmp_path)["totals"] == {"cancelled": 2}
    assert results(tmp_path)["exit_code"] == 130


def test_a_killed_qemu_is_lost_and_the_other_cell_goes_on(
    runner: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    machines = children(runner.pid)
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in machines}
    (victim,) = [pid for pid, argv in names.items() if b"6.1-s390x" in argv]
    os.kill(victim, signal.SIGKILL)
    assert runner.stderr is not None
    assert b"6.1-s390x: lost" in runner.stderr.readline()
    assert [pid for pid in machines if is_alive(pid)] == [pid for pid in machines if pid != victim]
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=20)
    assert results(tmp_path)["totals"] == {"lost": 1, "cancelled": 1}


def test_a_cell_whose_folder_is_removed_is_lost_and_the_other_goes_on(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "quizmatrix", "run", "-k", "6.1", "-a", "x86_64,s390x", "--offline"]
    command += ["-j", "2", "--output", "run", "--", "touch /shared/made; sleep 3"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "run/6.1-s390x/artifacts/made").exists():
            time.sleep(0.05)
        shutil.rmtree(tmp_path / "run/6.1-s390x")
        assert process.wait(60) == 125
    cells = {cell["cell"]: cell for cell in results(tmp_path)["cells"]}
    assert {name: cell["outcome"] for name, cell in cells.items()} == {
        "6.1-x86_64": "passed",
        "6.1-s390x": "lost",
    }
    assert cells["6.1-s390x"]["detail"].endswith("6.1-s390x was removed while it ran")


def test_a_guest_that_freezes_times_out(environment: dict[str, str], tmp_path: Path) -> None:
    """A stopped QEMU looks like a guest that hangs with its interrupts off."""
    command = [sys.executable, "-m", "quizmatrix", "run", "--only", "6.1-x86_64", "--offline", "-v"]
    command += ["--timeout", "1s", "--output", "run", "--", "sleep 1000"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while not process.stderr.readline().rstrip().endswith(b": running"):
            pass
        (machine,) = children(process.pid)
        os.kill(machine, signal.SIGSTOP)
        assert process.wait(60) == 124
    assert not is_alive(machine)


def test_the_first_failure_stops_the_others(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    script = "[ $QUIZMATRIX_ARCH = s390x ] && exit 9; sleep 1000"
    done = quizmatrix(
        *("run", "-k", "6.1", "-a", "x86_64,s390x", "--offline", "-x", "--output", "run", "--", script)
    )
    assert done.returncode == 1
    cells = {cell["cell"]: cell["outcome"] for cell in results(tmp_path / "here")["cells"]}
    assert cells == {"6.1-x86_64": "cancelled", "6.1-s390x": "failed"}


def programs_without(missing: str, folder: Path) -> Path:
    """A folder with all programs of this host except one."""
    folder.mkdir()
    for program in (found for place in os.get_exec_path() for found in Path(place).glob("*")):
        if program.name != missing and not (folder / program.name).is_symlink():
            (folder / program.name).symlink_to(program)
    return folder


def test_a_missing_qemu_costs_only_its_own_cells(environment: dict[str, str], tmp_path: Path) -> None:
    programs = programs_without("qemu-system-s390x", tmp_path / "bin")
    command = [sys.executable, "-m", "quizmatrix", "run", "-k", "6.1", "-a", "x86_64,s390x"]
    command += ["--offline", "--output", "run", "--", "true"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"PATH": str(programs)},
        capture_output=True,
        check=False,
    )
    cells = {cell["cell"]: cell for cell in results(tmp_path)["cells"]}
    assert cells["6.1-x86_64"]["outcome"] == "passed", done.stderr
    assert cells["6.1-s390x"]["outcome"] == "unprepared"
    assert "apt-get install" in cells["6.1-s390x"]["detail"]
    assert done.returncode == 125


def test_a_host_that_cannot_start_qemu_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    """An error during a cell is reported; earlier, it was an internal error with a traceback."""
    programs = programs_without("setpriv", tmp_path / "bin")
    command = [sys.executable, "-m", "quizmatrix", "run", "-k", "6.1", "-a", "x86_64,s390x"]
    done = subprocess.run(
        [*command, "--offline", "--output", "run", "--", "true"],
        cwd=tmp_path,
        env=environment | {"PATH": str(programs)},
        capture_output=True,
        check=False,
    )
    for cell in results(tmp_path)["cells"]:
        assert cell["outcome"] == "unprepared"
        assert cell["detail"] == "`setpriv` is not installed. On Debian: sudo apt-get install util-linux"
    assert b"Traceback" not in done.stderr
    assert done.returncode == 125


def test_what_could_not_be_tested_is_tried_again(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    # A restored guest is there before that.
    argv = ["run", "--only", "6.1-x86_64", "--cold", "--offline", "--boot-timeout", "20ms", "--retries", "1"]
    assert quizmatrix(*argv, "--output", "run", "--", "true").returncode == 125
    (cell,) = results(tmp_path / "here")["cells"]
    assert (cell["outcome"], cell["attempts"]) == ("boot-failed", 2)
    assert (tmp_path / "here/run/6.1-x86_64.attempt-1/console.log").exists()
    assert (tmp_path / "here/run/6.1-x86_64/console.log").exists()


def test_two_runs_at_once_never_meet(
    runner: subprocess.Popen[bytes], quizmatrix: Quizmatrix, tmp_path: Path
) -> None:
    (tmp_path / "here/mine").write_text("second\n")
    done = quizmatrix("run", "--only", "6.1-x86_64", "--offline", "--", "cat mine; echo x >/shared/y")
    assert done.stdout == b"second\n"
    assert len(children(runner.pid)) == 2
    assert not list((tmp_path / "run").glob("*/artifacts/y"))
