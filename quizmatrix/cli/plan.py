"""What the command line of `run` and `shell` asks of the scheduler, checked."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from quizmatrix.cli import command_stdin
from quizmatrix.cli.repeat import repeating
from quizmatrix.core import paths
from quizmatrix.core.errors import UsageError, host_error
from quizmatrix.core.units import parse_duration
from quizmatrix.model import profile
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import Cell
from quizmatrix.model.spec import Bind
from quizmatrix.model.task import Task, handing_on, in_each
from quizmatrix.model.user import is_user
from quizmatrix.prepare import currentfolder, selection
from quizmatrix.prepare.selection import Selection
from quizmatrix.run import runlayer
from quizmatrix.schedule.plan import Plan, check_layers
from quizmatrix.terminal.sessions import Sitting


def tasks_of(chosen: Selection, command: list[str] | None) -> list[Task]:
    """COMMAND in each cell, or what the matrix hands on; UsageError where there are both."""
    if chosen.handoff is None:
        return in_each(chosen.cells, command or [])
    if command:
        raise UsageError(
            f"{chosen.matrix} takes no command",
            cause="it has commands of its own, in [handoff]",
            next_step="Leave out what comes after `--`, or name another matrix.",
        )
    if any(cell.shard for cell in chosen.cells):
        raise UsageError(
            f"--shard deals a COMMAND's tests, and {chosen.matrix} has commands of its own",
            next_step="Leave out --shard.",
        )
    return handing_on(chosen.cells, chosen.handoff, str(chosen.matrix))


def make_plan(args: argparse.Namespace, tasks: list[Task], sitting: Sitting | None) -> Plan:
    """What the command line asks of the scheduler, checked."""
    layers = check_layers([Path(layer) for layer in args.layer])
    if (standing := paths.standing_layer()) is not None:
        layers.insert(0, standing)
    _check_ports(args, tasks)
    environment = dict(_setting(text) for text in args.env)
    is_passed_on = {text.partition("=")[0]: "=" not in text for text in args.env}
    work_tree, typed = (None, None) if args.no_work_tree else _work_tree(_current_folder())
    return Plan(
        tasks=tasks,
        jobs=selection.checked("-j", args.jobs, selection.whole_number(1)) if args.jobs else None,
        max_time=selection.checked("--max-time", args.max_time, parse_duration) if args.max_time else None,
        retries=selection.checked("--retries", args.retries, selection.whole_number(0)),
        fail_fast=args.fail_fast,
        layers=layers,
        work_tree=work_tree,
        typed=typed,
        accelerator=None if args.accel == "auto" else Accelerator(args.accel),
        machine=_machine(args, [task.cell for task in tasks]),
        qemu=_more_of_qemu(args),
        binds=[_bind(text) for text in args.bind],
        stdin=command_stdin.file_of(args),
        environment=environment,
        passed_on=[name for name in environment if is_passed_on[name]],
        user=_user(args.user),
        session=sitting.take_place if sitting else None,
        repeat=repeating(args, sitting.words if sitting else ()),
    )


def _work_tree(folder: Path) -> tuple[str | None, str | None]:
    """The current folder as the guest is shown it, and its name in the user's shell where that is another.

    One that cannot be shown at its own path (`/dev/shm/x`) can be at that name.
    """
    typed = currentfolder.as_typed(str(folder))
    own = runlayer.work_tree_of(folder)
    if own is None and typed is not None:
        return runlayer.work_tree_of(Path(typed)), None
    return own, typed if own else None


def _bind(text: str) -> Bind:
    """Read HOST:GUEST[:ro]."""
    rest, mode = (text[:-3], "ro") if text.endswith(":ro") else (text.removesuffix(":rw"), "rw")
    host, colon, place = rest.rpartition(":")
    if not colon or not host or not place.startswith("/"):
        raise UsageError(f"--bind {text}", next_step="Write --bind HOST:GUEST[:ro], GUEST beginning with /.")
    is_file = Path(host).is_file()
    if not is_file and not Path(host).is_dir():
        raise UsageError(f"--bind {text}", cause=f"{host} is neither a folder nor a file")
    clean = os.path.normpath(place)
    if (clean.count("/") == 1 and clean.strip("/") in ("", *runlayer.TAKEN)) or "\n" in clean:
        raise UsageError(
            f"--bind {text}", cause=f"{clean} is the guest's own", next_step="Bind it to a place below."
        )
    return Bind(path=str(Path(host).absolute()), guest=clean, writable=mode == "rw", is_file=is_file)


def _user(text: str | None) -> str | None:
    if text is not None and not is_user(text):
        raise UsageError(f"--user {text}", next_step="Write --user USER or USER:GROUP, names or numbers.")
    return text


def _setting(text: str) -> tuple[str, str]:
    """Read NAME=VALUE, or NAME alone: the variable of our own environment."""
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


def _machine(args: argparse.Namespace, cells: list[Cell]) -> str | None:
    machine: str | None = args.machine
    arches = {cell.arch for cell in cells}
    if machine is not None and len(arches) > 1:
        raise UsageError(
            f"--machine {machine} for {', '.join(sorted(arches))}",
            cause="no machine is of more than one architecture",
            next_step="Choose one with -a or --only.",
        )
    return machine


def _more_of_qemu(args: argparse.Namespace) -> list[str]:
    """The words of each --qemu, taken apart as a shell does."""
    words: list[str] = []
    for text in args.qemu:
        try:
            words += shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--qemu {text}", cause=str(error)) from error
    return words


def _check_ports(args: argparse.Namespace, tasks: list[Task]) -> None:
    """UsageError where several guests at a time would be behind one port of the host."""
    if len(tasks) == 1 or args.jobs == "1":
        return
    for task in tasks:
        for use in task.cell.profiles:
            for forward in profile.forwards_of(use, task.id):
                if forward.port:
                    raise UsageError(
                        f"{use.name}:forward={forward} for {len(tasks)} cells at a time",
                        cause="a port of the host leads to one guest",
                        next_step=f"Write 0 for any port that is free, forward={forward.address}:0-"
                        f"{forward.to}, choose one cell, or run one at a time: -j 1.",
                    )


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise host_error("find the current folder", error) from error
