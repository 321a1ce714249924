"""Processes end with who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from quizmatrix import process
from quizmatrix.errors import HostError


def wait_until_gone(pid: int) -> bool:
    """Whether a process, which may be a zombie of a container without init, ends within some seconds."""
    for _ in range(200):
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_output_and_status_come_back() -> None:
    done = anyio.run(process.run, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.status, done.output, done.errors) == (3, b"out\n", b"err\n")
    assert done.last_words == "err"


def test_a_helper_gets_a_small_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("APT_CONFIG", "/etc/evil")
    done = anyio.run(process.run, ["env"])
    assert b"SECRET" not in done.output
    assert b"APT_CONFIG" not in done.output
    assert b"LC_ALL=C.UTF-8" in done.output


def test_cancelling_ends_the_helper_and_its_children(tmp_path: Path) -> None:
    async def play() -> None:
        async with anyio.create_task_group() as group:
            script = f"sleep 1000 & echo $! >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; wait"
            group.start_soon(process.run, ["sh", "-c", script])
            while not (tmp_path / "pid").exists():  # noqa: ASYNC110 - there is no event in a shell
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(play)
    assert wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    script = (
        "import anyio\n"
        "from quizmatrix import process\n"
        "async def main():\n"
        "    child = await process.start(['sleep', '1000'])\n"
        "    print(child.pid, flush=True)\n"
        "    await anyio.sleep(1000)\n"
        "anyio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # It has become what it was started for, so that its death is not that of the wrapper.
        for _ in range(200):
            if b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]:
                break
            time.sleep(0.02)
        os.kill(parent.pid, signal.SIGKILL)
    assert wait_until_gone(child)


def test_a_missing_program_is_named_with_its_package() -> None:
    with pytest.raises(HostError) as caught:
        process.require_program("no-such-program", "its-package")
    assert "apt-get install its-package" in caught.value.next_step
