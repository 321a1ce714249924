"""Child processes end with the process that started them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import process
from quizmatrix.core.errors import HostError


def wait_until_gone(pid: int) -> bool:
    """Whether a process ends within some seconds; it may stay as a zombie, in a container without init."""
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
        "from quizmatrix.core import process\n"
        "async def main():\n"
        "    child = await process.start(['sleep', '1000'])\n"
        "    print(child.pid, flush=True)\n"
        "    await anyio.sleep(1000)\n"
        "anyio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # Wait until execve(2) is done, so that the wrapper is not what is killed.
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


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! >{tmp_path}/pid; echo said; exit 3"
    try:
        done = anyio.run(process.run, ["sh", "-c", script])
        assert (done.status, done.output) == (3, b"said\n")
        asked = process.run_blocking(["sh", "-c", script])
        assert (asked.status, asked.output) == (3, b"said\n")
        # Its own child goes on, as intended.
        pid = int((tmp_path / "pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_all_output_arrives_however_slowly_it_is_taken() -> None:
    taken = bytearray()

    def take(data: bytes) -> None:
        time.sleep(0.01)
        taken.extend(data)

    async def play() -> process.Completed:
        return await process.run(["sh", "-c", "seq 100000"], on_output=take)

    assert anyio.run(play).status == 0
    assert bytes(taken) == b"".join(b"%d\n" % number for number in range(1, 100001))


def test_a_program_that_does_not_end_is_stopped() -> None:
    async def play() -> None:
        await process.run(["sh", "-c", "sleep 1000"], limit=0.1)

    with pytest.raises(HostError) as caught:
        anyio.run(play)
    assert str(caught.value) == "sh was stopped: it had not ended after 0.10s"
    assert caught.value.next_step == "sh -c 'sleep 1000'"
    asked = process.run_blocking(["sleep", "1000"], limit=0.1)
    assert (asked.status, asked.last_words) == (124, "sleep did not answer within 0.10s")


def test_what_is_asked_reads_its_input() -> None:
    assert process.run_blocking(["cat"], stdin=b"\0\xff\n" * 100_000).output == b"\0\xff\n" * 100_000


def test_no_signal_is_sent_by_the_number_of_a_child_that_is_gone(tmp_path: Path) -> None:
    """The process id is reused by the kernel; another member of its group plays the new process."""

    async def play() -> None:
        script = f"sleep 1000 & echo $! >{tmp_path}/pid"
        child = await process.start(["sh", "-c", script])
        await child.wait()
        process.signal_group(child, signal.SIGKILL)
        assert await process.kill(child)

    anyio.run(play)
    other = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0]
    os.kill(other, signal.SIGKILL)
    assert state != "Z"


def test_children_are_reaped_in_the_loops_thread() -> None:
    """If a thread reaps a child, its process id can be reused before the event loop knows."""

    async def play() -> int:
        before = threading.active_count()
        children = [await process.start(["sleep", "1000"]) for _ in range(3)]
        threads = threading.active_count() - before
        for child in children:
            assert await process.kill(child)
        return threads

    assert anyio.run(play) == 0
