"""Quizmatrix's own stdin: when it is read, and what reading it must not do."""

import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
import tty
from pathlib import Path
from typing import IO

import anyio
import msgspec
import pytest

from quizmatrix.cli.options import run_options, run_request
from quizmatrix.cli.parser import parse
from quizmatrix.core.errors import UsageError
from quizmatrix.model.cells import expand
from quizmatrix.model.events import CellNote, Event
from quizmatrix.model.matrix import Matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import OWN_STDIN, CellSpec
from quizmatrix.model.task import in_each
from quizmatrix.prepare.specify import GuestPlan
from quizmatrix.run.channel import Port
from quizmatrix.run.observer import Observer
from quizmatrix.run.stdin import FileSource, OwnSource, feed
from quizmatrix.runs import directory
from quizmatrix.runs.rerun import Choice
from quizmatrix.schedule import command_stdin
from quizmatrix.schedule.plan import Plan
from quizmatrix.schedule.scheduler import Scheduler
from tests.ready import Ready, ended

ASK = "import sys; from quizmatrix.run.stdin import own_source; sys.exit(0 if own_source() else 9)"


def asked(stdin: int | IO[bytes]) -> int:
    return subprocess.run([sys.executable, "-c", ASK], stdin=stdin, check=False).returncode


def test_what_there_is_to_read(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as file, (tmp_path / "new").open("wb") as new:
        assert [asked(stdin) for stdin in (reader, file)] == [0, 0]
        assert [asked(stdin) for stdin in (subprocess.DEVNULL, new, writer)] == [9, 9, 9]
    os.close(reader)
    os.close(writer)


def test_git_bisect_run_keeps_its_stdin(tmp_path: Path) -> None:
    """`git bisect run` starts us repeatedly with one stdin; a stdin that its script makes may be read."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(4):
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", str(number)], check=True)
    subprocess.run([*git, "bisect", "start", "HEAD", "HEAD~3"], check=True, capture_output=True)
    script = """"$1" -c "$2"; echo "bisected: $?"; echo x | "$1" -c "$2"; echo "piped: $?\""""
    with (tmp_path / "list").open("wb+") as file:
        done = subprocess.run(
            [*git, "bisect", "run", "sh", "-c", script, "sh", sys.executable, ASK],
            stdin=file,
            capture_output=True,
            text=True,
            check=True,
        )
    lines = done.stdout.splitlines()
    assert "bisected: 9" in lines
    assert "piped: 0" in lines
    assert not {"bisected: 0", "piped: 9"} & {*lines}


@pytest.mark.parametrize(
    ("argv", "cells", "reads"),
    [
        (["--only", "6.1-x86_64"], 1, True),
        (["--only", "6.1-x86_64", "--json", "-"], 1, True),
        (["-k", "6.1"], 2, False),
        (["--only", "6.1-x86_64", "--no-stdin"], 1, False),
        (["--only", "6.1-x86_64", "--stdin", "/etc/passwd"], 1, False),
        (["--only", "6.1-x86_64", "-S"], 1, False),
    ],
)
def test_who_reads_it(argv: list[str], cells: int, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quizmatrix.run.stdin.own_source", lambda: "it")
    request = run_request(parse(["run", *argv, "--", "true"]))
    chosen = Choice(tasks=[None] * cells, order=[])  # type: ignore[list-item]
    assert (command_stdin.own_source(request, is_single=chosen.is_single) is not None) == reads
    request = msgspec.structs.replace(request, unattended=True)
    assert command_stdin.own_source(request, is_single=chosen.is_single) is None


def stdin_of(*words: str) -> str | None:
    return run_options(parse(["run", *words, "--", "true"])).guest.stdin


@pytest.mark.parametrize(
    ("name", "words"),
    [("/no/such", "No such file"), ("/etc", "no file"), ("/dev/zero", "may have no end")],
)
def test_a_file_that_is_none(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        command_stdin.file_of(stdin_of("--stdin", name))


def test_the_two_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="not allowed with"):
        parse(["run", "--stdin", "x", "--no-stdin", "--", "true"])


def test_a_fifo_is_kept_for_every_cell(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = command_stdin.file_of(stdin_of("--stdin", str(fifo)))
    thread = threading.Thread(target=fifo.write_bytes, args=(b"once",))
    thread.start()
    kept = command_stdin.file_for_all_cells(path, tmp_path)
    thread.join()
    assert kept == str(tmp_path / command_stdin.KEPT)
    assert Path(kept).read_bytes() == b"once"
    assert command_stdin.file_for_all_cells(path, tmp_path) == kept  # a run that is resumed
    assert command_stdin.file_for_all_cells("/dev/null", tmp_path) is None


def received(source: FileSource | OwnSource) -> bytes:
    async def passed() -> bytes:
        port = Port()
        port.guest.setblocking(False)
        data = b""

        async def take() -> None:
            nonlocal data
            while True:
                await anyio.wait_readable(port.guest)
                more = port.guest.recv(1 << 16)
                if not more:
                    return
                data += more

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(take)
                await feed(port, source)
        port.close()
        return data

    return anyio.run(passed)


@pytest.mark.parametrize("kind", ["file", "pipe", "non-blocking pipe", "socket"])
def test_every_source_is_read_to_its_end(kind: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(data)
    if kind == "file":
        whole = FileSource(str(tmp_path / "file"))
        assert received(whole) == b"\n" + data
        whole.close()
        reader = os.open(tmp_path / "file", os.O_RDONLY)
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        reader, writer = ours.detach(), theirs.detach()
    else:
        reader, writer = os.pipe()
    if "non-blocking" in kind:
        os.set_blocking(reader, False)
    if kind != "file":

        def write() -> None:
            with os.fdopen(writer, "wb") as file:
                file.write(data)

        threading.Thread(target=write).start()
    source = OwnSource(reader)
    assert not source.consumed
    assert received(source) == b"\n" + data
    assert source.consumed
    os.close(reader)


def test_what_gives_nothing_is_not_used_up() -> None:
    reader, writer = os.pipe()
    source = OwnSource(reader)

    async def wait() -> None:
        with anyio.move_on_after(0.2):
            await source.read()

    anyio.run(wait)
    assert not source.consumed
    os.close(writer)
    assert received(source) == b"\n"
    assert not source.consumed
    os.close(reader)


BACKGROUND = """
import anyio, os, signal, sys
from quizmatrix.run.stdin import OwnSource
async def read():
    with anyio.move_on_after(2):
        await OwnSource().read()
        return "data"
    return "none"
print(anyio.run(read), flush=True)
os._exit(0)
"""


def test_a_run_in_the_background_of_a_terminal_is_not_stopped() -> None:
    told, tell = os.pipe()
    leader, terminal = pty.fork()
    if leader == 0:
        # As a shell does: a background job has its own process group.
        try:
            os.set_inheritable(tell, True)
            job = subprocess.Popen([sys.executable, "-c", BACKGROUND], process_group=0, stdout=tell)
            _, status = os.waitpid(job.pid, os.WUNTRACED)
            os.write(tell, b"stopped" if os.WIFSTOPPED(status) else b"ended")
            os.kill(job.pid, signal.SIGKILL) if os.WIFSTOPPED(status) else None
        finally:
            os._exit(0)
    os.write(terminal, b"for the shell\n")
    os.close(tell)
    with os.fdopen(told, "rb") as file:
        assert file.read() == b"none\nended"
    os.waitpid(leader, 0)
    os.close(terminal)


@pytest.mark.parametrize(("takes", "attempts"), [(True, 1), (False, 3)])
def test_an_attempt_that_took_some_is_not_repeated(takes: bool, attempts: int, tmp_path: Path) -> None:
    """Bytes that one attempt has read are lost for the next; a guest that ran no command has read none."""
    (tmp_path / "kernel").mkdir()
    (cell,) = expand(Matrix(kernels=["6.1"], arches=["s390x"]), "test")
    plan = Plan(tasks=in_each([cell], ["cat"]), retries=2, guest=GuestPlan(stdin=OWN_STDIN))
    reader, writer = os.pipe()
    os.write(writer, b"some")
    seen: list[Event] = []

    async def run_cell(spec: CellSpec, observer: Observer) -> CellResult:
        assert spec.command.stdin == OWN_STDIN
        assert observer.stdin is not None
        if takes:
            assert await observer.stdin.read() == b"some"
        return ended(spec, Outcome.LOST)

    async def play() -> list[CellResult]:
        conductor = Scheduler(
            plan, directory.create(tmp_path / "run", ["cat"]), Ready(tmp_path), seen.append, run_cell=run_cell
        )
        conductor.take_stdin(OwnSource(reader))
        return await conductor.run()

    (result,) = anyio.run(play)
    assert result.attempts == attempts
    assert any(isinstance(event, CellNote) and "used up" in event.text for event in seen) == takes
    # The stdin is not known any more, so no cell can be called flaky.
    assert (result.inputs == "") == takes
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_keys_are_a_pagers_while_it_has_the_terminal() -> None:
    ours, terminal = pty.openpty()
    kept = termios.tcgetattr(terminal)
    source = OwnSource(terminal)

    async def read() -> bytes:
        with anyio.move_on_after(0.3):
            return await source.read()
        return b"none"

    tty.setcbreak(terminal)
    os.write(ours, b"q")
    assert anyio.run(read) == b"none"
    assert os.read(terminal, 10) == b"q"
    termios.tcsetattr(terminal, termios.TCSANOW, kept)
    os.write(ours, b"a line\n")
    assert anyio.run(read) == b"a line\n"
    for descriptor in (ours, terminal):
        os.close(descriptor)
