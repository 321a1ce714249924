"""What a guest says of its threads when the command's time is up, and what the verdict says of that."""

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.crash.memory import StoppedTask
from quizmatrix.model.finding import FindingKind
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.stage import Stage
from quizmatrix.run import hang, registers
from quizmatrix.run.channel import Port
from quizmatrix.run.hang import Thread
from quizmatrix.run.qmp import Monitor, QmpError
from quizmatrix.run.verdict import Evidence, Expiry, judge

# As the agent sends them: proc(5)'s stat, the wait channel, the stack.
STAT = "{id} ({name}) {state} {parent} 95 95 0 -1 4194560 100 0 0 0 {user} {system} 0 0 20 0 1 0 700 0 0"
WAITING = [
    "[<0>] io_schedule+0x46/0x80",
    "[<0>] wait_on_page_bit+0x1/0x2",
    "[<0>] ext4_sync_file+0x3/0x4 [ext4]",
]


def said(
    name: str,
    state: str,
    stack: list[str],
    *,
    number: int = 96,
    parent: int = 95,
    times: tuple[int, int] = (0, 0),
    channel: str = "0",
) -> str:
    stat = STAT.format(id=number, name=name, state=state, parent=parent, user=times[0], system=times[1])
    return "|".join([stat, channel, *stack, ""])


def read(*messages: str) -> list[Thread]:
    threads = [hang.read_thread(message) for message in messages]
    assert None not in threads
    return [one for one in threads if one is not None]


def title(*messages: str) -> str:
    found = hang.finding(read(*messages), 7)
    assert found is not None
    assert (found.kind, found.line) == (FindingKind.HANG, 7)
    return found.title


def test_a_thread_is_read() -> None:
    (thread,) = read(said("a) (b|c", "D", WAITING, times=(150, 25), channel="io_schedule"))
    assert (thread.name, thread.id, thread.parent, thread.state) == ("a) (b|c", 96, 95, "D")
    assert (thread.user, thread.system, thread.channel) == (1.5, 0.25, "io_schedule")
    assert thread.stack == WAITING
    assert thread.functions == ["wait_on_page_bit", "ext4_sync_file"]


@pytest.mark.parametrize(
    "message",
    ["", ")", "1 (x) S", "x (x) S 1", "1 (x) S one two", said("x", "S", []).replace("96 (", "96.5 ("), "|||"],
)
def test_what_is_no_thread_is_passed_over(message: str) -> None:
    assert hang.read_thread(message) is None


def test_what_is_far_too_long_is_cut() -> None:
    (thread,) = read(said("x", "S", ["f+0x1/0x2"] * 100_000))
    assert len(thread.stack) <= 64


def test_a_hostile_name_is_cleaned() -> None:
    (thread,) = read(said("\x1b[31mred\x9b\u202e" + "x" * 100, "\x1b[0mS", ["\x1b]0;title\x07 f+0x1/0x2"]))
    assert "\x1b" not in thread.sentence + thread.title + "".join(thread.stack)
    assert len(thread.title) < 200


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([said("dd", "D", WAITING)], "dd waits in wait_on_page_bit (called by ext4_sync_file)"),
        ([said("sh", "R", WAITING, times=(400, 12))], "sh runs in user space"),
        ([said("cat", "R", [], times=(1, 300))], "cat runs in the kernel"),
        ([said("x", "S", [], channel="pipe_read")], "x waits in pipe_read"),
        ([said("x", "S", [])], "x waits"),
        ([said("x", "T", WAITING)], "x is stopped"),
        ([said("x", "Z", [])], "x is ended, and not waited for"),
        ([said("x", "Q", [])], "x is in the state Q"),
    ],
)
def test_what_one_thread_does(messages: list[str], sentence: str) -> None:
    assert title(*messages) == sentence


def test_the_thread_that_explains_most_comes_first() -> None:
    shell = said("sh", "S", ["[<0>] do_wait+0x1/0x2"], number=90, parent=89)
    busy = said("loop", "R", [], times=(500, 0))
    stuck = said("dd", "D", WAITING, number=91, parent=90)
    worker = said("kworker/0:1", "D", ["[<0>] blk_io_done+0x1/0x2"], number=12, parent=2)
    child = said("sleep", "S", ["[<0>] common_nsleep+0x1/0x2"], number=97, parent=90)
    assert title(shell, child).startswith("sleep waits in common_nsleep")
    assert title(shell, child, busy).startswith("loop runs")
    assert title(worker, shell, child, busy, stuck) == (
        "dd waits in wait_on_page_bit (called by ext4_sync_file); kworker/0:1 waits in blk_io_done"
    )
    found = hang.finding(read(worker, shell, stuck), 0)
    assert found is not None
    times = "0.00 s in user space, 0.00 s in the kernel"
    assert [line for line in found.block if not line.startswith(" ")] == [
        f"dd (91, child of 90): waiting, not to be interrupted; {times}",
        f"sh (90, child of 89): waiting; {times}",
        f"kworker/0:1 (12, child of 2): waiting, not to be interrupted; {times}",
    ]
    assert hang.finding([], 0) is None


def test_the_same_hang_has_the_same_fingerprint() -> None:
    def fingerprint(*messages: str) -> str:
        found = hang.finding(read(*messages), 0)
        assert found is not None
        return found.fingerprint

    x86 = ["[<0>] io_schedule+0x46/0x80", "[<0>] take.isra.0+0x1/0x2 [m]", "[<0>] __x64_sys_read+0x1/0x2"]
    power = ["[<0>] .take+0x9/0x99 [m]", "[<0>] sys_read+0x1/0x22", "[<0>] system_call_exception+0x1/0x2"]
    assert fingerprint(said("a", "D", x86)) == fingerprint(said("b", "D", power, number=7, times=(9, 9)))
    assert fingerprint(said("a", "D", x86)) != fingerprint(said("a", "D", WAITING))
    assert fingerprint(said("a", "R", x86)) != fingerprint(said("b", "R", x86))


# A guest that does not answer. The formats are QEMU's, of 7.2.
REGISTERS = {
    "x86_64": "CPU#0\nRAX=0000000000000000\nRIP=ffffffff81000012 RFL=00000046 [---Z-P-]\n"
    "\nCPU#1\nRAX=0000000000000000\nRIP=ffffffffc0200007 RFL=00000246\n",
    "s390x": "\nCPU#0\nPSW=mask 0704c00180000000 addr 0000000000100012\nR00=0000000000000000\n"
    "\nCPU#1\nPSW=mask 0704c00180000000 addr 000003ff7fda117e\n",
    "ppc64": "\nCPU#0\nNIP c000000000010012   LR c0080000000341f0 CTR c0000000005c16ac XER 0000011e CPU#0\n"
    "\nCPU#1\nNIP c008000000034004   LR c0080000000341f0 CTR 0\n",
}
MAPS = {
    "x86_64": "ffffffff81000000 T take\nffffffff81000100 t other\nffffffff81000200 D data\n",
    "s390x": "0000000000100000 T take\n0000000000100100 T other\n",
    "ppc64": "c000000000010000 T take\nc000000000010100 T other\n",
}


class FakeMonitor:
    def __init__(self, said: str) -> None:
        self._said = said

    async def ask(self, command: str, **arguments: object) -> str:
        assert (command, arguments) == ("human-monitor-command", {"command-line": "info registers -a"})
        return self._said


@pytest.mark.parametrize("arch", REGISTERS)
def test_where_the_cpus_are(arch: str, tmp_path: Path) -> None:
    def places() -> list[str]:
        looks = anyio.run(registers.counters, FakeMonitor(REGISTERS[arch]))  # type: ignore[arg-type]
        return registers.places(looks, tmp_path)

    without = places()
    assert [place.partition(": ")[0] for place in without] == ["CPU 0", "CPU 1"]
    (tmp_path / "System.map").write_text(MAPS[arch])
    (tmp_path / "config").write_text("CONFIG_A=y\nCONFIG_RANDOMIZE_BASE=y\n")
    assert places() == without  # the kernel may be elsewhere
    (tmp_path / "config").write_text("CONFIG_A=y\n# CONFIG_RANDOMIZE_BASE is not set\n")
    first, second = places()
    assert first == "CPU 0: take+0x12"
    assert second == without[1]  # in a module, which no map has
    found = hang.of_silent_guest([first, second], None, 3)
    assert found.functions == ["take"]
    assert found.title.startswith("the guest does not answer; CPU 0: take+0x12; CPU 1: 0x")


def stopped(number: int, state: str, *stack: str, parent: int = 90, is_on_cpu: bool = False) -> StoppedTask:
    """A task as drgn reads it in a guest's memory."""
    return StoppedTask(
        id=number,
        parent=parent,
        name=f"task{number}",
        state=state,
        is_on_cpu=is_on_cpu,
        user=1.0,
        system=0.0,
        stack=[f"{name}+0x8/0x80" for name in stack],
    )


def test_what_ran_explains_a_guest_that_stood_still_then_what_is_blocked() -> None:
    tasks = [
        stopped(91, "D", "schedule", "wait_for_it", "sys_sync"),
        stopped(92, "S", "schedule", "do_wait", "sys_wait4"),
        # A thread of the kernel's own.
        stopped(93, "R", "spin", "worker_thread", "kthread", parent=2, is_on_cpu=True),
    ]
    found = hang.of_stopped_guest(tasks, ["CPU 0: 0x3ff"], None, 7)
    assert found.title == (
        "the guest does not answer: task93 runs in spin (called by worker_thread); "
        "task91 waits in wait_for_it (called by sys_sync)"
    )
    assert found.functions == ["spin", "worker_thread"]
    assert found.line == 7
    assert found.block[-1] == "CPU 0: 0x3ff"
    without = hang.of_stopped_guest(tasks[:2], [], None, 7)
    assert without.title.startswith("the guest does not answer: task91 waits in wait_for_it")


def test_a_stack_that_the_kernel_printed_itself_has_more_callers() -> None:
    console = ConsoleWatch()
    console.feed(b"[    9.0] Kernel panic - not syncing: NMI: Not continuing\n")
    console.feed(b"[    9.0] Call Trace:\n")
    for name in ("panic", "spin", "start", "do_one_initcall"):
        console.feed(f"[    9.0]  {name}+0x8/0x80 [a]\n".encode())
    console.finish()
    (printed,) = console.findings
    of_kernel = hang.of_silent_guest([], printed, 0)
    task = stopped(91, "R", "spin", is_on_cpu=True)
    found = hang.of_stopped_guest([task], [], printed, 0)
    assert found.title.endswith(": task91 runs in spin (called by start, do_one_initcall)")
    assert found.fingerprint == of_kernel.fingerprint
    # Where the NMI has reached another CPU, what ran is told.
    other = hang.of_stopped_guest([stopped(91, "R", "loop", is_on_cpu=True)], [], printed, 0)
    assert other.functions == ["loop"]


def test_of_several_cpus_all_are_told_and_first_the_one_that_others_wait_for() -> None:
    busy = msgspec.structs.replace(stopped(90, "R", is_on_cpu=True), user=9.0)
    tasks = [
        busy,
        stopped(91, "R", "smp_call_function_many_cond", "flush_tlb", is_on_cpu=True),
        stopped(92, "R", "spin", "start", is_on_cpu=True),
        stopped(93, "D", "schedule", "wait_for_it"),
    ]
    found = hang.of_stopped_guest(tasks, ["CPU 0: 0x1", "CPU 1: 0x2", "CPU 2: 0x3"], None, 0)
    assert found.title == (
        "the guest does not answer: task92 runs in spin (called by start); task91 runs in "
        "smp_call_function_many_cond (called by flush_tlb); task90 runs in user space; "
        "task93 waits in wait_for_it"
    )
    assert found.functions == ["spin", "start"]


def test_what_is_blocked_is_told_where_the_cpu_is_in_user_space() -> None:
    tasks = [stopped(90, "R", is_on_cpu=True), stopped(93, "D", "schedule", "wait_for_it")]
    found = hang.of_stopped_guest(tasks, ["CPU 0: take+0x12"], None, 0)
    assert found.title == (
        "the guest does not answer: task90 runs in user space; task93 waits in wait_for_it"
    )


def test_a_panic_that_printed_no_stack_replaces_none() -> None:
    console = ConsoleWatch()
    console.feed(b"[    9.0] Kernel panic - not syncing: NMI: Not continuing\n")
    console.finish()
    (printed,) = console.findings
    task = stopped(91, "R", "take", is_on_cpu=True)
    found = hang.of_stopped_guest([task], ["CPU 0: take+0x12"], printed, 0)
    assert found.title == "the guest does not answer: task91 runs in take"


@pytest.mark.parametrize("tasks", [[], [stopped(91, "R", is_on_cpu=True)]])
def test_without_a_stack_the_places_of_the_cpus_are_told(tasks: list[StoppedTask]) -> None:
    places = ["CPU 0: take+0x12"]
    assert hang.of_stopped_guest(tasks, places, None, 3) == hang.of_silent_guest(places, None, 3)


def test_of_a_guest_whose_qemu_does_not_answer_either_that_is_all() -> None:
    assert hang.of_stopped_guest([], [], None, 3).title == "the guest does not answer"


async def answers(*lines: str) -> list[Any]:
    """What two commands get, of which the first is not waited for, if QEMU writes these lines."""
    port = Port()
    got: list[Any] = []

    def write(*lines: str) -> None:
        for line in lines:
            port.guest.sendall(line.encode() + b"\n")

    try:
        write('{"QMP": {}}', '{"return": {}, "id": 1}')
        monitor = Monitor(port)
        await monitor.open()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await monitor.ask("slow")
        write(*lines)
        got.append(await monitor.ask("quick"))
    except QmpError as error:
        got.append(str(error))
    finally:
        port.close()
    return got


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (['{"return": "late", "id": 2}', '{"return": "own", "id": 3}'], "own"),
        (['{"error": {"desc": "late"}, "id": 2}', '{"event": "X"}', '{"return": "own", "id": 3}'], "own"),
        (['{"return": "late", "id": 2}', '{"error": {"desc": "no"}, "id": 3}'], "no"),
    ],
)
def test_a_late_answer_is_not_the_next_ones(lines: list[str], answer: str) -> None:
    assert anyio.run(answers, *lines) == [answer]


# The verdict.


def test_a_panic_that_we_have_caused_is_none() -> None:
    console = ConsoleWatch()
    console.feed(b"[    1.0] one\n[    2.0] two\n")
    seen = Evidence(stage=Stage.RUNNING, expired=Expiry(limit=3.0, provoked=console.lines))
    console.feed(b"[    9.0] Kernel panic - not syncing: NMI: Not continuing\n")
    assert judge(seen, console) == (Outcome.TIMED_OUT, "the command was still running after 3.00s")
    assert seen.expired is not None
    seen.expired.hang = hang.of_silent_guest(["CPU 0: take+0x12"], None, 2)
    assert judge(seen, console)[1].endswith("3.00s: the guest does not answer; CPU 0: take+0x12")


def test_a_panic_before_that_is_one() -> None:
    console = ConsoleWatch()
    console.feed(b"[    9.0] Kernel panic - not syncing: Oh\n")
    seen = Evidence(stage=Stage.RUNNING, expired=Expiry(limit=3.0, provoked=console.lines))
    assert judge(seen, console) == (Outcome.PANICKED, "Oh")
