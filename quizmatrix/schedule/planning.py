"""Makes the plan of a run from its options, and checks it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from quizmatrix.core import paths, units
from quizmatrix.core.errors import UsageError
from quizmatrix.model import profile
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import ConductOptions, RunOptions
from quizmatrix.model.spec import Bind, CommandLine, Kept
from quizmatrix.model.start import StartKind
from quizmatrix.model.task import Task
from quizmatrix.model.user import is_user
from quizmatrix.prepare import currentfolder
from quizmatrix.prepare.specify import GuestPlan
from quizmatrix.run import runlayer
from quizmatrix.schedule import command_stdin
from quizmatrix.schedule.commandline import repeating
from quizmatrix.schedule.plan import MakeSession, Plan, check_layers


def make_plan(
    options: RunOptions,
    tasks: list[Task],
    *,
    repeat: Callable[[Task], CommandLine] | None = None,
    session: MakeSession | None = None,
) -> Plan:
    """The plan of a run with these options. Raises UsageError where an option is wrong.

    repeat: makes the command line that repeats a task; by default that of `quizmatrix run`. session: see
    Plan.
    """
    guest, conduct = options.guest, options.conduct
    layers = check_layers([Path(layer) for layer in guest.layer])
    if (standing := paths.standing_layer()) is not None:
        layers.insert(0, standing)
    _check_ports(conduct, tasks)
    environment = dict(_setting(text) for text in guest.env)
    is_passed_on = {text.partition("=")[0]: "=" not in text for text in guest.env}
    work_tree, typed = (None, None) if guest.no_work_tree else _work_tree(paths.current_folder())
    return Plan(
        tasks=tasks,
        jobs=conduct.jobs,
        max_time=units.checked("--max-time", conduct.max_time, units.parse_duration)
        if conduct.max_time
        else None,
        retries=conduct.retries,
        reruns=conduct.rerun_failed,
        fail_fast=conduct.fail_fast,
        accelerator=None if guest.accel == "auto" else Accelerator(guest.accel),
        guest=GuestPlan(
            layers=layers,
            work_tree=work_tree,
            typed=typed,
            machine=_machine(guest.machine, [task.cell for task in tasks]),
            qemu=_more_of_qemu(guest.qemu),
            keeps=Kept(memory=guest.on_timeout == "dump", counters=options.results.coverage is not None),
            start=StartKind.COLD if guest.cold else StartKind.WARM if guest.warm else None,
            binds=[_bind(text) for text in guest.bind],
            stdin=command_stdin.file_of(guest.stdin),
            environment=environment,
            passed_on=[name for name in environment if is_passed_on[name]],
            user=_user(guest.user),
        ),
        session=session,
        repeat=repeat or repeating(options),
    )


def _work_tree(folder: Path) -> tuple[str | None, str | None]:
    """The path of the current folder in the guest, and its path in the user's shell if that is another.

    A folder whose real path a guest cannot have (`/dev/shm/x`) is shown at the shell's path.
    """
    typed = currentfolder.shell_path(str(folder))
    own = runlayer.work_tree_of(folder)
    if own is None and typed is not None:
        return runlayer.work_tree_of(Path(typed)), None
    return own, typed if own else None


def _bind(text: str) -> Bind:
    """Parse HOST:GUEST[:ro]."""
    rest, mode = (text[:-3], "ro") if text.endswith(":ro") else (text.removesuffix(":rw"), "rw")
    host, colon, place = rest.rpartition(":")
    if not colon or not host or not place.startswith("/"):
        raise UsageError(f"--bind {text}", next_step="Write --bind HOST:GUEST[:ro], GUEST beginning with /.")
    is_file = Path(host).is_file()
    if not is_file and not Path(host).is_dir():
        raise UsageError(f"--bind {text}", cause=f"{host} is neither a folder nor a file")
    clean = os.path.normpath(place)
    if (clean.count("/") == 1 and clean.strip("/") in ("", *runlayer.GUEST_FOLDERS)) or "\n" in clean:
        raise UsageError(
            f"--bind {text}", cause=f"{clean} is the guest's own", next_step="Bind it to a place below."
        )
    return Bind(path=str(Path(host).absolute()), guest=clean, writable=mode == "rw", is_file=is_file)


def _user(text: str | None) -> str | None:
    if text is not None and not is_user(text):
        raise UsageError(f"--user {text}", next_step="Write --user USER or USER:GROUP, names or numbers.")
    return text


def _setting(text: str) -> tuple[str, str]:
    """Parse NAME=VALUE, or NAME, whose value comes from this process's environment."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not name.isascii():
        raise UsageError(
            f"--env {text}",
            cause=f"`{name}` is no name of a variable",
            next_step="Write --env NAME=VALUE, or --env NAME to pass a variable of yours on.",
        )
    if not equals and name not in os.environ:
        raise UsageError(
            f"--env {name} passes a variable on that is not set",
            next_step=f"Export it, or give it a value: --env {name}=VALUE.",
        )
    return name, value if equals else os.environ[name]


def _machine(machine: str | None, cells: list[Cell]) -> str | None:
    arches = {cell.arch for cell in cells}
    if machine is not None and len(arches) > 1:
        raise UsageError(
            f"--machine {machine} for {', '.join(sorted(arches))}",
            cause="a machine type belongs to one architecture",
            next_step="Choose one with -a or --only.",
        )
    return machine


def _more_of_qemu(given: list[str]) -> list[str]:
    """The words of all --qemu options, split as a shell does."""
    words: list[str] = []
    for text in given:
        try:
            words += shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--qemu {text}", cause=str(error)) from error
    return words


def _check_ports(conduct: ConductOptions, tasks: list[Task]) -> None:
    """Raise UsageError where several guests at a time would use one port of the host."""
    if len(tasks) == 1 or conduct.jobs == 1:
        return
    for task in tasks:
        for use in task.cell.profiles:
            for forward in profile.forwards_of(use, profile.facts_of(use.name, task.id)):
                if forward.port:
                    raise UsageError(
                        f"{use.name}:forward={forward} for {len(tasks)} cells at a time",
                        cause="a port of the host leads to one guest",
                        next_step=f"Write 0 for any port that is free, forward={forward.address}:0-"
                        f"{forward.to}, choose one cell, or run one at a time: -j 1.",
                    )
