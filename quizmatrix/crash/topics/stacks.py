"""The stacks of tasks, and of what the CPUs were running."""

from __future__ import annotations

from collections.abc import Iterator

import drgn
import msgspec
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.sched import cpu_curr, task_cpu, task_state_to_char

from quizmatrix.crash.bounds import Listed, text_of
from quizmatrix.crash.dump import REGISTERS

# The largest numbers of tasks, of those with the same stack that are named, and of characters of a value.
_MOST_TASKS = 5000
_MOST_NAMED = 8
_LONGEST_VALUE = 100

# In s390x' PSW (z/Architecture Principles of Operation, problem state).
_PROBLEM_STATE = 1 << 48

# Tasks in these states come first: blocked, and running.
_FIRST = ("D", "R")


class _Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task. state: the character that ps(1) prints."""

    name: str
    state: str

    @property
    def rank(self) -> int:
        """Its place among the others: the smaller, the earlier."""
        return _FIRST.index(self.state) if self.state in _FIRST else len(_FIRST)


def of_all_tasks(program: drgn.Program) -> Iterator[str]:
    """All tasks by their stacks, the blocked ones first; those with the same stack together."""
    by_stack: dict[str, list[_Task]] = {}
    tasks_read = Listed(for_each_task(program), _MOST_TASKS)
    for task in tasks_read:
        by_stack.setdefault(_stack_of(program, task), []).append(_read(task))
    for stack, tasks in sorted(by_stack.items(), key=lambda found: min(task.rank for task in found[1])):
        more = f" and {len(tasks) - _MOST_NAMED} more" if len(tasks) > _MOST_NAMED else ""
        yield ", ".join(f"{task.name} ({task.state})" for task in tasks[:_MOST_NAMED]) + more
        yield from (f"  {line}" for line in stack.splitlines())
        yield ""
    if tasks_read.rest:
        yield tasks_read.rest


def of_cpus(program: drgn.Program) -> Iterator[str]:
    """The task of each CPU, with its stack and arguments."""
    for cpu in for_each_online_cpu(program):
        task = cpu_curr(program, cpu)
        yield f"CPU {cpu}: {_read(task).name}"
        yield from with_arguments(program, task)
        yield ""


def with_arguments(program: drgn.Program, thread: drgn.Object) -> Iterator[str]:
    """The frames of a task's stack, each with the arguments of its function that are known there."""
    try:
        trace = trace_of(program, thread)
    except Exception as error:  # drgn's errors have no class in common
        yield f"no stack: {error}"
        return
    for line, frame in zip(str(trace).splitlines(), trace, strict=False):
        yield line
        for name in _parameters(program, frame):
            if value := _value(frame, name):
                yield f"        {name} = {value}"


def trace_of(program: drgn.Program, task: drgn.Object) -> drgn.StackTrace:
    """The stack of a task; of one that a CPU runs, by the CPU's registers where drgn does not find them."""
    try:
        return program.stack_trace(task)
    except Exception:  # as above
        cpu = task_cpu(task)
        known = program.cache.get(REGISTERS, [])
        if cpu >= len(known) or cpu_curr(program, cpu) != task:
            raise
        return program.stack_trace(known[cpu])


def is_in_user_space(program: drgn.Program, task: drgn.Object, trace: drgn.StackTrace) -> bool:
    """Whether the CPU that ran a task was not in the kernel. trace: the task's."""
    if program.platform.arch is drgn.Architecture.S390X:
        # Its addresses do not tell: the kernel has an address space of its own.
        known = program.cache.get(REGISTERS, [])
        cpu = task_cpu(task)
        return cpu < len(known) and bool(known[cpu].psw.mask.value_() & _PROBLEM_STATE)
    bits = 64 if program.platform.flags & drgn.PlatformFlags.IS_64_BIT else 32
    return len(trace) > 0 and not trace[0].pc >> (bits - 1)


def _parameters(program: drgn.Program, frame: drgn.StackFrame) -> list[str]:
    """The names of its function's parameters, as far as they are variables there."""
    try:
        parameters = program.function(frame.name).type_.parameters
    except Exception:  # of a function in assembler, it cannot read the type
        return []
    known = frame.locals()
    return [one.name for one in parameters if one.name in known]


def _value(frame: drgn.StackFrame, name: str) -> str:
    """A variable's value on one line; empty where the compiler has left none."""
    try:
        variable = frame[name]
        if variable.absent_:
            return ""
        text = variable.format_(dereference=False, type_name=False)
    except Exception:  # drgn's errors have no class in common
        return ""
    return " ".join(text.split())[:_LONGEST_VALUE]


def _stack_of(program: drgn.Program, task: drgn.Object) -> str:
    try:
        return str(trace_of(program, task)) or "no stack"
    except Exception as error:  # as above
        return str(error)


def _read(task: drgn.Object) -> _Task:
    try:
        return _Task(name=f"{task.pid.value_()} {text_of(task.comm)}", state=task_state_to_char(task))
    except Exception:  # as above
        return _Task(name="a task that cannot be read", state="?")
