"""What a guest was doing when its command outlived the time limit, as its agent tells it."""

from __future__ import annotations

import re
from itertools import islice

import msgspec

from quizmatrix.console.fingerprint import fingerprint, functions
from quizmatrix.core.text import clean_line
from quizmatrix.crash.memory import StoppedTask
from quizmatrix.model.finding import Finding, FindingKind

# Clock ticks in a second, as the kernel counts them for user space on all architectures (USER_HZ).
_TICKS = 100
# The parent of the kernel's own threads.
_KTHREADD = 2
# The largest number of functions in a sentence, and of threads in one.
_MAX_FUNCTIONS = 3
_MAX_NAMED = 2
_MAX_CPUS_NAMED = 4
# The largest number of functions of a stack that are read (MAX_STACK_TRACE_DEPTH of fs/proc/base.c).
_MAX_STACK = 64
# The largest number of lines that are kept.
_MAX_LINES = 400

# A function in a place of a CPU.
_NAME = re.compile(r"([A-Za-z_][\w.]*)\+0x")

# In these a CPU waits for another.
_WAITS_FOR_CPU = re.compile(
    r"(smp_call_\w+|csd_lock_\w+|\w*spin_(lock|acquire)\w*|\w*(read|write)_lock\w*|arch_\w+_lock\w*|multi_cpu_stop)$"
)

_STATES = {
    "R": "running",
    "S": "waiting",
    "D": "waiting, not to be interrupted",
    "T": "stopped",
    "t": "stopped by a tracer",
    "Z": "ended, and not waited for",
    "I": "idle",
}


class Thread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread of a guest.

    id: its number (TID). parent: its process' parent. state: a letter of proc(5)'s stat.
    user, system: seconds of CPU time. channel: the kernel function that it waits in, if known.
    stack: its stack in the kernel, the innermost function first, as in proc(5).
    stood_still: whether it ran on a CPU that stood still when the stack was read.
    """

    id: int
    parent: int
    name: str
    state: str
    user: float
    system: float
    channel: str
    stack: list[str]
    stood_still: bool = False

    @property
    def functions(self) -> list[str]:
        """The functions that it waits in, the innermost first, without those that every waiting thread is in.

        None where it runs, unless it stood still: its stack was another a moment later.
        """
        if self.state == "R" and not self.stood_still:
            return []
        return functions(FindingKind.HANG, "", self.stack) or ([self.channel] if self.channel else [])

    @property
    def is_of_kernel(self) -> bool:
        """Whether it is a thread of the kernel's own."""
        return _KTHREADD in (self.id, self.parent)

    @property
    def sentence(self) -> str:
        """What it does, without a full stop."""
        names = self.functions
        if self.state == "R" and names:
            return f"{self.name} runs in {_with_callers(names)}"
        if self.state == "R":
            in_user_space = not self.stack if self.stood_still else self.user >= self.system
            place = "user space" if in_user_space else "the kernel"
            return f"{self.name} runs in {place}"
        if self.state in "SDI":
            return f"{self.name} waits" + (f" in {_with_callers(names)}" if names else "")
        return f"{self.name} is {_STATES.get(self.state, f'in the state {self.state}')}"

    @property
    def title(self) -> str:
        """A line above its stack."""
        state = _STATES.get(self.state, self.state)
        where = f" in {self.channel}" if self.channel and not self.stack else ""
        times = f"{self.user:.2f} s in user space, {self.system:.2f} s in the kernel"
        return f"{self.name} ({self.id}, child of {self.parent}): {state}{where}; {times}"


def read_thread(said: str) -> Thread | None:
    """A thread in a message of the agent: `STAT|CHANNEL|FRAME|...`; None if it is no such message."""
    head, _, tail = said.rpartition(")")
    number, _, name = head.partition(" (")
    stat, *rest = tail.split("|", _MAX_STACK)
    fields = stat.split()
    channel, *stack = [*rest, ""]
    try:
        return Thread(
            id=int(number),
            parent=int(fields[1]),
            name=clean_line(name, 20) or "?",
            state=clean_line(fields[0], 1),
            user=int(fields[11]) / _TICKS,
            system=int(fields[12]) / _TICKS,
            channel="" if channel.strip() in ("", "0") else clean_line(channel, 60),
            stack=[clean_line(line) for line in stack if line],
        )
    except (ValueError, IndexError, OverflowError):
        return None


def finding(threads: list[Thread], line: int) -> Finding | None:
    """What hangs, as a finding: the stuck thread's stack first. None if nothing is known.

    line: the number of lines that the console had.
    """
    ranked = sorted(threads, key=_rank)
    if not ranked:
        return None
    # A thread that runs has no functions: then it counts whose thread it is.
    names = ranked[0].functions or [ranked[0].name]
    title = "; ".join(one.sentence for one in _telling(ranked))
    return _hang(title, line, _lines(ranked)[:_MAX_LINES], names)


def of_stopped_guest(
    tasks: list[StoppedTask], places: list[str], printed: Finding | None, line: int
) -> Finding:
    """What a guest was doing that does not answer, as a finding: by its memory, if something was read there.

    tasks: from its memory. The rest: see `of_silent_guest`.
    """
    known = of_silent_guest(places, printed, line)
    ranked = sorted(map(_thread_of, tasks), key=_rank_of_stopped)
    if not ranked or not (names := ranked[0].functions):
        return known
    block = [*_lines(ranked)[:_MAX_LINES], *known.block]
    told = _functions_in(printed)
    if printed is not None and told[:1] == names[:1]:
        # The kernel itself knows more callers than drgn, such as those in a module's initialisation.
        ranked[0] = msgspec.structs.replace(ranked[0], stack=printed.block)
        names = told
    running = [one for one in ranked if one.stood_still]
    waiting = [one for one in _telling(ranked) if not one.stood_still]
    named = [*running[:_MAX_CPUS_NAMED], *waiting]
    title = f"the guest does not answer: {'; '.join(one.sentence for one in named)}"
    return _hang(title, line, block, names)


def _thread_of(task: StoppedTask) -> Thread:
    return Thread(
        id=task.id,
        parent=task.parent,
        name=task.name,
        state=task.state,
        user=task.user,
        system=task.system,
        channel="",
        stack=task.stack,
        stood_still=task.is_on_cpu,
    )


def of_silent_guest(places: list[str], printed: Finding | None, line: int) -> Finding:
    """Where a guest is that does not answer, as a finding.

    places: of its CPUs (see registers.py). printed: what its kernel printed when it was made to panic.
    line: see `finding`.
    """
    names = _functions_in(printed)
    where = f", and is in {_with_callers(names)}" if names else ""
    if places and (not names or len(places) > 1):
        # The NMI reaches one CPU, and another may be the one that loops.
        where += f"; {'; '.join(places)}"
    block = [*places, *(printed.block if printed else [])]
    named = names or [name for place in places for name in _NAME.findall(place)]
    return _hang(f"the guest does not answer{where}", line, block, named, names or ["no answer"])


def _hang(
    title: str, line: int, block: list[str], names: list[str], marks: list[str] | None = None
) -> Finding:
    """A finding of this kind. names: the functions that it is in. marks: of its fingerprint, if others."""
    return Finding(
        kind=FindingKind.HANG,
        title=title,
        line=line,
        block=block,
        functions=names,
        fingerprint=fingerprint(FindingKind.HANG, "", names if marks is None else marks),
    )


def _functions_in(printed: Finding | None) -> list[str]:
    return functions(FindingKind.HANG, "", printed.block) if printed is not None else []


def _lines(ranked: list[Thread]) -> list[str]:
    return [text for one in ranked for text in (one.title, *(f"  {frame}" for frame in one.stack))]


def _with_callers(names: list[str]) -> str:
    """`NAME (called by NAME, NAME)`: the first of some functions, the innermost first."""
    inside, *callers = names[:_MAX_FUNCTIONS]
    return inside + (f" (called by {', '.join(callers)})" if callers else "")


def _telling(ranked: list[Thread]) -> list[Thread]:
    """The first thread, and the first that waits for what it cannot be interrupted in, if that is another."""
    first = ranked[0].functions
    others = (one for one in ranked[1:] if one.state == "D" and one.functions != first)
    return [ranked[0], *islice(others, _MAX_NAMED - 1)]


def _rank_of_stopped(thread: Thread) -> tuple[bool, bool, bool, bool, tuple[int, int, float, int]]:
    """Sorts first what a CPU ran in the kernel, and of that what did not wait for another CPU.

    Its CPU time tells nothing: a CPU with the interrupts off does not count it.
    """
    names = thread.functions
    waits = bool(names) and _WAITS_FOR_CPU.match(names[0]) is not None
    return not names, not thread.stood_still, waits, thread.state != "D", _rank(thread)


def _rank(thread: Thread) -> tuple[int, int, float, int]:
    """Sorts first what explains most: the command's threads, those that cannot be interrupted, then the busy.

    Of those that wait, the youngest: the others wait for it.
    """
    return (
        thread.is_of_kernel,
        {"D": 0, "R": 1, "T": 2, "t": 2, "Z": 4}.get(thread.state, 3),
        -(thread.user + thread.system) if thread.state == "R" else 0.0,
        -thread.id,
    )
