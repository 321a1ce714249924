"""What a guest was doing whose CPUs stood still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import drgn
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import cpu_curr, task_state_to_char

from quizmatrix.core.text import clean_line
from quizmatrix.crash.bounds import Listed, text_of
from quizmatrix.crash.memory import StoppedTask
from quizmatrix.crash.topics import stacks

# A guest chooses how many there are: of CPUs and tasks that are looked at, tasks that are told, frames of a
# stack, and characters of a function's name.
_MOST_CPUS = 64
_MOST_TASKS = 5000
_MOST_TOLD = 300
_MOST_FRAMES = 64
_LONGEST_NAME = 100


def tasks(program: drgn.Program) -> list[StoppedTask]:
    """What the CPUs ran, what is blocked, and what user space waits for; not what waits for a CPU.

    Empty where the tasks cannot be read.
    """
    try:
        running = [cpu_curr(program, cpu) for cpu in islice(for_each_online_cpu(program), _MOST_CPUS)]
    except Exception:  # drgn's errors have no class in common
        return []
    # Each CPU's idle task has the number 0.
    told = [found for task in running if (found := _read(program, task, is_on_cpu=True)) and found.id]
    known = {one.id for one in told}
    for task in islice(_waiting(program), _MOST_TOLD):
        if (found := _read(program, task, is_on_cpu=False)) and found.id not in known:
            told.append(found)
    return told


def _waiting(program: drgn.Program) -> Iterator[drgn.Object]:
    """The blocked tasks first."""
    others = []
    for task in Listed(for_each_task(program), _MOST_TASKS):
        with suppress(Exception):  # as above
            state = task_state_to_char(task)
            if state == "D":
                yield task
            elif task.mm and state not in "RXI":
                others.append(task)
    yield from others


def _read(program: drgn.Program, task: drgn.Object, *, is_on_cpu: bool) -> StoppedTask | None:
    try:
        return StoppedTask(
            id=task.pid.value_(),
            parent=task.real_parent.tgid.value_(),
            name=clean_line(text_of(task.comm), 20) or "?",
            state="R" if is_on_cpu else clean_line(task_state_to_char(task), 1),
            is_on_cpu=is_on_cpu,
            user=task.utime.value_() / 1e9,
            system=task.stime.value_() / 1e9,
            stack=_frames(program, task, is_on_cpu=is_on_cpu),
        )
    except Exception:  # as above
        return None


def _frames(program: drgn.Program, task: drgn.Object, *, is_on_cpu: bool) -> list[str]:
    """The functions of its stack in the kernel, without those that the compiler put into their callers."""
    try:
        trace = stacks.trace_of(program, task)
        if is_on_cpu and stacks.is_in_user_space(program, task, trace):
            return []
        lines = [_line(program, frame) for frame in islice(trace, _MOST_FRAMES) if not frame.is_inline]
    except Exception as error:  # as above
        return [clean_line(f"not read: {error}", _LONGEST_NAME)]
    if is_on_cpu and lines:
        # The first is where it ran, the others are where calls return to.
        lines[0] = f"pc : {lines[0]}"
    return lines


def _line(program: drgn.Program, frame: drgn.StackFrame) -> str:
    """`NAME+0xOFFSET/0xSIZE [MODULE]`; the address where no symbol is known."""
    module = ""
    with suppress(LookupError):
        found = program.module(frame.pc)
        module = f" [{clean_line(found.name, 60)}]" if isinstance(found, drgn.RelocatableModule) else ""
    try:
        symbol = frame.symbol()
    except LookupError:
        return f"{frame.pc:#x}{module}"
    name = clean_line(symbol.name, _LONGEST_NAME)
    return f"{name}+{frame.pc - symbol.address:#x}/{symbol.size:#x}{module}"
