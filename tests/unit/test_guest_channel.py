"""The host's side of a guest: QEMU's command line, console, channel, verdict."""

import os
import re
import shlex
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quizmatrix.console.watch import ConsoleWatch, first_finding
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model.arch import arch_names
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.spec import ActiveProfile, Bind, Disk, GuestNetwork, Share
from quizmatrix.model.stage import Stage
from quizmatrix.run import bus, qemu, runlayer
from quizmatrix.run.channel import ConsolePipe, Control, InvalidMessageError, Message, Output, Port
from quizmatrix.run.reproduce import write_script
from quizmatrix.run.verdict import Evidence, Expiry, HostEvidence, Rules, judge
from quizmatrix.terminal.sessions import SessionHost
from quizmatrix.terminal.tty import Terminal
from tests.made_spec import spec

CHARDEVS = {name: f"socket,fd={number}" for number, name in enumerate(qemu.CHARDEVS, 7)}


@pytest.mark.parametrize("arch", arch_names())
def test_the_command_line(arch: str, tmp_path: Path) -> None:
    one = spec(tmp_path, arch)
    shares = runlayer.write_run_layer(one, "marker")
    argv = qemu.command_line(one, shares, CHARDEVS, passed_fd=7)
    assert argv == qemu.command_line(one, shares, CHARDEVS, passed_fd=7)
    text = " ".join(argv)
    assert argv[0].startswith("qemu-system-")
    assert "-no-reboot" in argv
    assert "spawn=deny" in argv[argv.index("-sandbox") + 1]
    assert argv[argv.index("-m") + 1] == "512M"
    assert "-netdev" not in argv
    assert "-nic" not in argv
    assert "fd=7,set=1" in argv
    assert "path=/home/me/a,, b," in text
    writable = [word for word in argv if word.startswith("local,") and not word.endswith("readonly=on")]
    shared = [share.tag for share in shares].index("shared")
    assert [word.split(",")[1] for word in writable] == [f"id=share{shared}"]


@pytest.mark.parametrize("arch", arch_names())
def test_places_on_the_bus(arch: str, tmp_path: Path) -> None:
    usual = spec(tmp_path, arch)
    shares = runlayer.write_run_layer(usual, "marker")
    assert not [word for word in qemu.command_line(usual, shares, CHARDEVS) if ",addr=" in word]
    disks = [Disk(serial=f"quizb{number}", path="/x") for number in range(bus.ROOM - 1 - len(shares))]
    full = spec(tmp_path, arch, disks=disks)
    qemu.check(full, shares)
    argv = qemu.command_line(full, shares, CHARDEVS)
    facts = usual.machine.arch.facts.qemu
    devices = [word for word in argv if re.match(rf"virtio-\w+-{facts.transport},", word)]
    assert len(devices) == bus.ROOM
    found = [re.search(r",addr=(0x\w+)\.(\d)(,multifunction=on)?$", device) for device in devices]
    if facts.slots is None:
        assert found == [None] * bus.ROOM
    else:
        places = [(int(match[1], 16), int(match[2])) for match in found if match]
        assert len(set(places)) == bus.ROOM
        assert all(0 < slot < 31 and function < 8 for slot, function in places)
        # Of several devices in one slot, the first one is marked and comes before the others.
        firsts = [place for place, match in zip(places, found, strict=True) if match and match[3]]
        assert firsts == [(slot, 0) for slot, function in places if function == 1]
    more = spec(tmp_path, arch, disks=disks, network=GuestNetwork())
    with pytest.raises(UnpreparedError, match="65 devices, and a guest has room for 64"):
        qemu.check(more, shares)


@pytest.mark.parametrize(
    ("folder", "shown"),
    [
        ("/home/me/x", True),
        ("/root/x", True),
        ("/root", False),
        ("/var/lib/x", True),
        ("/", False),
        ("/usr/src/linux", False),
        ("/etc", False),
        ("/work", True),
        ("/tmp/x", True),
        ("/shared/x", False),
        ("/home/line\nbreak", False),
    ],
)
def test_the_work_tree_hides_nothing_of_the_guest(folder: str, shown: bool) -> None:
    assert runlayer.work_tree_of(Path(folder)) == (folder if shown else None)


def test_reproduce_can_be_pasted(tmp_path: Path) -> None:
    nasty = spec(
        tmp_path,
        words=["sh", "-c", "echo 'a b' $HOME -x\nexit 3"],
        work_tree=None,
        profiles=[ActiveProfile(name="memdev", asked="memdev:count=6,size=1G")],
        binds=[Bind(path="/h", guest="/g", writable=False)],
        environment={"A": "b c"},
        user="nobody",
    )
    shares = [Share(tag="kernel", path="/a -b/it's")]
    write_script(nasty, shares)
    text = (tmp_path / "reproduce.sh").read_text()
    words = shlex.split(text[text.index("qemu-system-s390x") : text.index("2>&1 >&3")], comments=True)
    assert "local,id=share0,path=/a -b/it's,security_model=none,multidevs=remap,readonly=on" in words
    again = text[text.index("quizmatrix run") : text.index("#\n# This script boots")].replace("\n#   ", "\n")
    assert shlex.split(again)[-4:] == ["--", *nasty.command.words]
    assert "--timeout 7.5s" in again
    assert "-p memdev:count=6,size=1G --bind /h:/g:ro --env 'A=b c' --user nobody" in again


PANICS = {
    "[    2.1] Kernel panic - not syncing: sysrq triggered crash": "sysrq triggered crash",
    "[    2.1][   T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0f": "Attempted to",
    "[    2.1] BUG: unable to handle page fault for address: ffff": "BUG: unable",
    "[    2.1] BUG: kernel NULL pointer dereference, address: 0": "BUG: kernel NULL",
    "[    2.1] Oops: 0002 [#1] PREEMPT SMP": "Oops: 0002",
    "Unable to handle kernel pointer dereference in virtual kernel address space": "Unable to handle",
    "[    2.1] kernel BUG at fs/inode.c:10!": "kernel BUG at fs/inode.c:10!",
    "[    9.1] VERIFY3(0 == err) failed (0 == 5)": "VERIFY3(0 == err) failed",
    "[    9.1] PANIC at spa.c:123:spa_sync()": "PANIC at spa.c",
}
SPLATS = [
    "WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "WARNING: kernel/x.c:12 at f+0x1/0x2, CPU#0: sh/1",
    "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
    "WARNING: sh/77 still has locks held!",
    "BUG: sleeping function called from invalid context at mm/x.c:1",
    "BUG: KASAN: use-after-free in f+0x1/0x2",
    "UBSAN: array-index-out-of-bounds in x.c:1:2",
    "INFO: task sh:1 blocked for more than 120 seconds.",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]",
    "INFO: lockdep is turned off.",
]
ORDINARY = [
    "evm: security.SMACK64 (disabled)",
    "x86/mm: Checked W+X mappings: passed, no W+X pages found.",
    "this is no WARNING: at all",
    "WARNING: nvram corruption detected: 0-length partition",
    "WARNING: Spectre v2 mitigation leaves CPU vulnerable",
    "systemd: no BUG: here",
    "INFO: everything is fine",
    "printk: Oopsla conference",
    "rcu: Hierarchical RCU implementation.",
]


def watch(*chunks: bytes) -> ConsoleWatch:
    console = ConsoleWatch()
    for chunk in chunks:
        console.feed(chunk)
    console.finish()
    return console


@pytest.mark.parametrize("line", PANICS)
def test_panics(line: str) -> None:
    console = watch(b"[    1.0] before\r\n", line.encode() + b"\r\n", b"[    3.0] behind\r\n")
    assert console.panic is not None
    assert console.panic.startswith(PANICS[line])
    assert (console.panic_line, console.last_line) == (1, "[    3.0] behind")


@pytest.mark.parametrize("prefix", ["", "[    2.123456] ", "[    2.123456][  T123] "])
@pytest.mark.parametrize("line", SPLATS)
def test_splats(line: str, prefix: str) -> None:
    console = watch(f"{prefix}{line}\r\n".encode())
    assert console.splats == [line]
    assert console.panic is None


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_lines(line: str) -> None:
    console = watch(f"[    2.123456] {line}\n".encode())
    assert (console.splats, console.panic) == ([], None)


def test_an_oops_is_the_reason_not_the_panic_behind_it() -> None:
    lines = b"BUG: kernel NULL pointer dereference\nOops: 0002\nKernel panic - not syncing: Fatal exception\n"
    assert watch(lines).panic == "BUG: kernel NULL pointer dereference"
    assert first_finding(b"fine\n\n" + lines) == 2
    assert first_finding(b"fine\n") is None


def test_the_rest_that_a_console_tells() -> None:
    assert watch(b"[  1.0] reboot: Restarting system\r\n").restarted
    assert watch(b"[  1.0] reboot: Power down\r\n").restarted
    assert watch(b"[  1.0] sysrq: Resetting\r\n").restarted
    assert watch(b"[  1.0] quizmatrix: the command has ended\r\n").ended
    killed = watch(b"[  1.0] Out of memory: Killed process 99 (tail) total-vm:1kB\r\n")
    assert killed.out_of_memory == "(tail)"


@settings(deadline=None)
@given(st.data())
def test_lines_may_come_in_pieces(data: st.DataObject) -> None:
    text = "\r\n".join([*PANICS, *SPLATS, *ORDINARY]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, parts = watch(text), watch(*pieces)
    assert (parts.panic, parts.splats, parts.panic_line) == (whole.panic, whole.splats, whole.panic_line)


def test_a_line_without_end_takes_no_memory() -> None:
    console = ConsoleWatch()
    for _ in range(1000):
        console.feed(b"x" * 4096)
    assert len(console.last_line) <= 4096


MARKER = b"0123456789abcdef"


def through_output(pieces: list[bytes], path: Path) -> tuple[bytes, bytes, bool]:
    """What is kept, what is passed on, and whether the end was reported."""
    passed = bytearray()

    async def pass_on(data: bytes) -> None:
        passed.extend(data)

    async def play() -> bool:
        port = Port()
        output = Output(port, path, MARKER, pass_on)
        async with anyio.create_task_group() as group:
            group.start_soon(output.pump)
            for piece in pieces:
                port.guest.sendall(piece)
                await anyio.lowlevel.checkpoint()
            port.close_guest()
        port.close()
        return output.ended.is_set()

    ended = anyio.run(play)
    return path.read_bytes(), bytes(passed), ended


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=8) | st.sampled_from([MARKER[:5], MARKER[:-1]]), max_size=6),
    st.integers(0, 16),
)
def test_output_is_exact_however_it_comes(pieces: list[bytes], cut: int) -> None:
    import tempfile

    data = b"".join(pieces)
    assume(MARKER not in data)  # that is the end, however it came there
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        assert through_output([*pieces, MARKER[:cut], MARKER[cut:]], path) == (data, data, True)
        assert through_output(pieces, path) == (data, data, data.endswith(MARKER))


def converse(said: list[bytes], talk: Callable[[Control], Awaitable[Any]]) -> Any:
    async def play() -> Any:
        port = Port()
        for piece in said:
            port.guest.sendall(piece)
        port.close_guest()
        try:
            return await talk(Control(port))
        finally:
            port.close()

    return anyio.run(play)


def test_messages_in_pieces() -> None:
    async def two(control: Control) -> list[Message | None]:
        return [await control.receive() for _ in range(3)]

    said = [b'{"event":"boo', b'ted"}\n{"event":"exited","exit_', b'code":3,"signal":null,"extra":1}\n']
    booted, exited, nothing = converse(said, two)
    assert (booted.event, exited.exit_code, nothing) == ("booted", 3, None)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"rubbish\n",
        b"\0\xff\n",
        b"[]\n",
        b'{"event":1}\n',
        b"{}\n",
        b"x" * 100_000,
        b'{"event":"a","exit_code":"b"}\n',
    ],
)
def test_rubbish_is_recognized(rubbish: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        converse([rubbish], lambda control: control.receive())


def test_a_message_that_quotes_a_name_which_is_no_utf8() -> None:
    said = b'{"event":"failed","message":"no /mnt/\xff"}\n'
    message = converse([said], lambda control: control.receive())
    assert message.message == "no /mnt/\ufffd"


def frame(kind: bytes, data: bytes) -> bytes:
    """As a guest's session sends it."""
    return kind + len(data).to_bytes(2, "big") + data


def session_with(
    guest: Callable[[Port], None], folder: Path, typed: bytes = b"typed"
) -> tuple[int | None, bytes, bytes]:
    """A session's status, and what it shows, of a guest whose input comes from a pipe."""

    async def play() -> tuple[int | None, bytes, bytes]:
        (folder / "typed").write_bytes(typed)
        read = os.open(folder / "typed", os.O_RDONLY)
        (shown, show), (told, tell) = os.pipe(), os.pipe()
        with closing(Port()) as port:
            host = SessionHost(Terminal((read, show, tell)), None)
            try:
                async with task_group() as group:
                    group.start_soon(anyio.to_thread.run_sync, guest, port)
                    await host.serve(port, None, folder)
            finally:
                for end in (read, show, tell):
                    os.close(end)
        with os.fdopen(shown, "rb") as output, os.fdopen(told, "rb") as errors:
            return host.status, output.read(), errors.read()

    return anyio.run(play)


# A session without a terminal runs.
RUNNING = frame(b"t", b"\0")


def test_what_is_typed_and_said_in_a_session(tmp_path: Path) -> None:
    def guest(port: Port) -> None:
        port.guest.sendall(RUNNING)
        got = b""
        while not got.endswith(frame(b"i", b"")):
            got += port.guest.recv(100)
        assert got == frame(b"i", b"typed") + frame(b"i", b"")
        said = frame(b"o", b"out") + frame(b"e", b"\0\xff") + frame(b"o", b"put") + frame(b"x", b"\x07")
        # However it arrives.
        for at in range(len(said)):
            port.guest.sendall(said[at : at + 1])

    assert session_with(guest, tmp_path) == (7, b"output", b"\0\xff")


def test_no_more_is_typed_than_the_guest_has_room_for(tmp_path: Path) -> None:
    room, typed = 1 << 16, os.urandom(200_000)

    def read(port: Port, wanted: int) -> bytes:
        """What was typed, until it is so much."""
        got, rest = b"", b""
        while len(got) < wanted:
            rest += port.guest.recv(1 << 12)
            while len(rest) >= 3 and len(rest) >= 3 + (size := int.from_bytes(rest[1:3], "big")):
                assert rest[:1] == b"i"
                got, rest = got + rest[3 : 3 + size], rest[3 + size :]
        return got

    def guest(port: Port) -> None:
        port.guest.sendall(RUNNING)
        got = read(port, room)
        time.sleep(0.2)
        with pytest.raises(BlockingIOError):
            port.guest.recv(1, socket.MSG_DONTWAIT)
        while len(got) < len(typed):
            port.guest.sendall(frame(b"a", (50_000).to_bytes(2, "big")))
            got += read(port, min(50_000, len(typed) - len(got)))
        assert got == typed
        port.guest.sendall(frame(b"x", b"\0"))

    assert session_with(guest, tmp_path, typed) == (0, b"", b"")


@pytest.mark.parametrize("last", [b"", b"o\xff", frame(b"?", b"what"), frame(b"a", b"1"), frame(b"x", b"")])
def test_a_session_whose_guest_dies_or_lies(last: bytes, tmp_path: Path) -> None:
    def guest(port: Port) -> None:
        port.guest.sendall(RUNNING + frame(b"o", b"output") + last)
        port.close_guest()

    expected = 255 if last.startswith(b"x") else None
    assert session_with(guest, tmp_path) == (expected, b"output", b"")


@pytest.mark.parametrize("said", [b"", frame(b"o", b"output")])
def test_a_guest_that_starts_no_session(said: bytes, tmp_path: Path) -> None:
    def guest(port: Port) -> None:
        port.guest.sendall(said)
        port.close_guest()

    with pytest.raises(UnpreparedError, match="the guest started no session"):
        session_with(guest, tmp_path)


def test_a_console_holds_much_that_nobody_has_read() -> None:
    async def play() -> int:
        console = ConsolePipe()
        for _ in range(30_000):
            os.write(console.guest, b"x")
        console.close_guest()
        received = 0
        while data := await console.receive():
            received += len(data)
        console.close()
        return received

    assert anyio.run(play) == 30_000


END = Message(event="exited", exit_code=0)
FAILED = Message(event="exited", exit_code=137, signal=9)


@pytest.mark.parametrize(
    ("seen", "console", "outcome", "detail"),
    [
        (Evidence(ended=END), b"", "passed", ""),
        (Evidence(ended=FAILED), b"", "failed", "killed by SIGKILL"),
        (Evidence(ended=FAILED), b"Out of memory: Killed process 1 (x)\n", "failed", "killed (x)"),
        (Evidence(ended=END), b"WARNING: at x.c:1\n", "splat", "WARNING: at x.c:1"),
        (Evidence(ended=FAILED), b"WARNING: at x\n", "failed", "SIGKILL"),
        (Evidence(ended=END), b"Kernel panic - not syncing: y\n", "panicked", "y"),
        (Evidence(ended=END, notes=["cut"]), b"", "passed", "cut"),
        (Evidence(ended=END, host=HostEvidence(fault="disk full")), b"", "lost", "disk full"),
        (
            Evidence(stage=Stage.RUNNING, expired=Expiry(limit=3.0)),
            b"",
            "timed-out",
            "still running after 3.00s",
        ),
        (
            Evidence(stage=Stage.RUNNING, expired=Expiry(limit=6.0), rules=Rules(factor=6.0)),
            b"",
            "timed-out",
            "still running after 6.00s (emulated; 1.00s on hardware)",
        ),
        (Evidence(stage=Stage.BOOTING, expired=Expiry(limit=3.0)), b"", "boot-failed", "no sign of life"),
        (Evidence(stage=Stage.JOINING, expired=Expiry(limit=3.0)), b"", "boot-failed", "layers"),
        (
            Evidence(stage=Stage.RUNNING, expired=Expiry(limit=3.0)),
            b"Kernel panic - not syncing: y\n",
            "panicked",
            "y",
        ),
        (Evidence(init_failed="init1: no"), b"", "boot-failed", "init1: no"),
        (Evidence(invalid_message="'x'", stage=Stage.RUNNING), b"", "lost", "an invalid message: 'x'"),
        (Evidence(stage=Stage.RUNNING, host=HostEvidence(qemu_status=-9)), b"", "lost", "killed by SIGKILL"),
        (
            Evidence(stage=Stage.RUNNING, host=HostEvidence(qemu_status=-9, is_out_of_memory=True)),
            b"",
            "lost",
            "QEMU was killed: this host ran out of memory",
        ),
        (
            Evidence(host=HostEvidence(qemu_status=1, qemu_words="a\nno such file")),
            b"",
            "lost",
            "status 1: no such file",
        ),
        (
            Evidence(host=HostEvidence(qemu_status=1, qemu_words="a\nqemu-x: no machine\nUse -help")),
            b"",
            "lost",
            ": qemu-x: no machine",
        ),
        (
            Evidence(stage=Stage.BOOTING, host=HostEvidence(qemu_status=0)),
            b"",
            "boot-failed",
            "restarted before",
        ),
        (
            Evidence(stage=Stage.RUNNING, host=HostEvidence(qemu_status=0)),
            b"reboot: Restarting system\n",
            "failed",
            "restarted",
        ),
        (Evidence(stage=Stage.RUNNING, host=HostEvidence(qemu_status=0)), b"", "panicked", "triple fault"),
        (
            Evidence(
                stage=Stage.RUNNING,
                host=HostEvidence(qemu_status=0),
                rules=Rules(silent_reset_is_fault=False),
            ),
            b"",
            "failed",
            "restarted",
        ),
        (Evidence(stage=Stage.RUNNING), b"", "lost", "closed its control port"),
    ],
)
def test_verdicts(seen: Evidence, console: bytes, outcome: str, detail: str) -> None:
    judged, words = judge(seen, watch(console))
    assert judged is Outcome(outcome)
    assert detail in words


def test_a_guest_that_always_has_more_to_say_is_not_all_that_is_heard() -> None:
    async def play() -> int:
        port, turns = Port(), 0

        async def another() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(another)
            for _ in range(100):
                port.guest.send(b"more")
                await port.receive()
            group.cancel_scope.cancel()
        port.close()
        return turns

    assert anyio.run(play) > 50
