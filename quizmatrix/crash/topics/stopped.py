"""What a guest was doing whose CPUs stood still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import drgn
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import cpu_curr, task_state_to_char

from quizmatrix.core.text import clean_line
from quizmatrix.crash.memory import StoppedTask
from quizmatrix.crash.topics import stacks
from quizmatrix.crash.topics.bounds import Listed, text_of

# The largest numbers of tasks that are looked at and told, and of a stack's frames.
_MOST_TASKS = 5000
_MOST_TOLD = 500
_MOST_FRAMES = 64


def tasks(program: drgn.Program) -> list[StoppedTask]:
    """What the CPUs ran, what is blocked, and what user space waits for; not what waits for a CPU.

    Empty where the tasks cannot be read.
    """
    try:
        running = [cpu_curr(program, cpu) for cpu in for_each_online_cpu(program)]
    except Exception:  # drgn's errors have no class in common
        return []
    # Each CPU's idle task has the number 0.
    told = [found for task in running if (found := _read(program, task, is_on_cpu=True)) and found.id]
    for task in _waiting(program):
        if len(told) >= _MOST_TOLD:
            break
        if found := _read(program, task, is_on_cpu=False):
            told.append(found)
    return told


def _waiting(program: drgn.Program) -> Iterator[drgn.Object]:
    for task in Listed(for_each_task(program), _MOST_TASKS):
        with suppress(Exception):  # as above
            state = task_state_to_char(task)
            if state == "D" or (task.mm and state not in "RXI"):
                yield task


def _read(program: drgn.Program, task: drgn.Object, *, is_on_cpu: bool) -> StoppedTask | None:
    try:
        return StoppedTask(
            id=task.pid.value_(),
            parent=task.real_parent.tgid.value_(),
            name=clean_line(text_of(task.comm), 20) or "?",
            state="R" if is_on_cpu else task_state_to_char(task),
            is_on_cpu=is_on_cpu,
            user=task.utime.value_() / 1e9,
            system=task.stime.value_() / 1e9,
            stack=_frames(program, task),
        )
    except Exception:  # as above
        return None


def _frames(program: drgn.Program, task: drgn.Object) -> list[str]:
    """The functions of its stack, without those that the compiler put into their callers."""
    try:
        trace = stacks.trace_of(program, task)
    except Exception:  # as above
        return []
    return [line for frame in list(trace)[:_MOST_FRAMES] if not frame.is_inline and (line := _line(frame))]


def _line(frame: drgn.StackFrame) -> str:
    """`NAME+0xOFFSET/0xSIZE`; empty where no symbol is known."""
    try:
        symbol = frame.symbol()
        return f"{clean_line(symbol.name)}+{frame.pc - symbol.address:#x}/{symbol.size:#x}"
    except LookupError:
        return ""
