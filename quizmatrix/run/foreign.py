"""Explains why a guest could not run a program: another architecture, or a missing interpreter.

A shell takes a program of another architecture for a script and reports a syntax error, which looks like a
failure of the tested kernel. For a missing interpreter it reports the program itself as not found.
"""

from __future__ import annotations

import os
import shlex
from functools import cache
from pathlib import Path

import msgspec

from quizmatrix.core import elf, paths
from quizmatrix.core.elf import Machine
from quizmatrix.model import profile
from quizmatrix.model.arch import Arch, arch_names, load_arch
from quizmatrix.model.cells import SMALL, Cell
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.user import BUSYBOX
from quizmatrix.run.channel import Message

# What a shell's exit status is for what it cannot execute.
EXIT_CANNOT_EXECUTE = 126

# Interpreters that every image has: a shell that does not find a script of theirs looked elsewhere.
_ALWAYS_THERE = frozenset({"/bin/sh", "/usr/bin/sh", "/usr/bin/env"})

# Bytes of the command's stderr that are looked at.
_LOOKED_AT = 1 << 20


def _own(arch: Arch) -> Machine:
    own = arch.facts.elf
    return Machine(machine=own.machine, bits=own.bits, byte_order=arch.facts.byte_order)


@cache
def machines() -> dict[str, Machine]:
    """Every machine that has a name here."""
    return {name: _own(load_arch(name)) for name in arch_names()} | elf.others()


def runs_on(arch: Arch) -> set[Machine]:
    """What kernels of an architecture may run."""
    return {_own(arch), *(machines()[name] for name in arch.facts.elf.also)}


def name_of(machine: Machine) -> str:
    """What people call it."""
    found = [name for name, known in machines().items() if known == machine]
    return found[0] if found else f"machine {machine.machine}"


def of_file(path: Path, arch: Arch) -> str | None:
    """The architecture that the program in `path` is for, where no kernel of `arch` runs that."""
    machine = elf.machine_of(path)
    return None if machine is None or machine in runs_on(arch) else name_of(machine)


def before_boot(cell: Cell, command: list[str], work_tree: str | None, hidden: list[str]) -> str | None:
    """The architecture of the program that `command` names, where it is a file of the work tree for another
    one than the cell's. hidden: places that the guest has something else at.
    """
    word = elf.program_word(command)
    path = elf.in_tree(word, work_tree) if word is not None and work_tree is not None else None
    if path is None or not os.access(path, os.X_OK) or any(path.is_relative_to(place) for place in hidden):
        return None
    # A profile of the user's may teach a guest to run others (binfmt_misc).
    folders = profile.folders()
    if not all(folders[use.name].is_relative_to(paths.data_dir("guest")) for use in cell.profiles):
        return None
    return of_file(path, load_arch(cell.arch))


def sentence(command: list[str], name: str) -> str:
    """`./prog is a program for x86_64`."""
    return f"{elf.program_word(command)} is a program for {name}"


def guest_check(spec: CellSpec) -> str:
    """The lines of a shell that look at the program in the guest, where it may be one of the user's.

    They end with 126 and leave the name in the file `foreign`. Where binfmt_misc is set up that decides.
    """
    word = elf.program_word(spec.command)
    are_theirs = any(layer.tag.startswith("user") for layer in spec.layers) or spec.binds
    if word is None or not ("/" in word or are_theirs or any(one.files for one in spec.profiles)):
        return ""
    own = "|".join(sorted(machine.pattern for machine in runs_on(spec.arch)))
    cases = "".join(
        f"    {machine.pattern}) foreign={name} ;;\n"
        for name, machine in machines().items()
        if machine not in runs_on(spec.arch)
    )
    path = spec.environment.get("PATH")
    setting = f"PATH={shlex.quote(path)}; " if path is not None and "PATH" not in spec.passed_on else ""
    return (
        f"file=$({setting}command -v {shlex.quote(word)})\n"
        'read -r -n 4 magic 2>/dev/null <"$file"\n'
        "case $magic in *ELF*) [ -e /proc/sys/fs/binfmt_misc/status ] || foreign=look ;; esac\n"
        'if [ "$foreign" ]; then\n'
        "    foreign=\n"
        f'    case $({BUSYBOX} hexdump -v -n 20 -e \'20/1 "%02x"\' "$file") in\n'
        f"    {own}) ;;\n{cases}    esac\n"
        "fi\n"
        '[ "$foreign" ] && { echo "$foreign" >/run/quizmatrix/io/foreign; exit 126; }\n'
    )


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A program that was not run. architecture: what it is for, where the guest's is another."""

    sentence: str
    architecture: str


def seen_in(spec: CellSpec, ended: Message | None) -> Program | None:
    """The program for which the command failed as it cannot be run, as the guest or a shell says."""
    if ended is None or ended.exit_code == 0:
        return None
    if ended.exit_code == EXIT_CANNOT_EXECUTE and ended.message in machines():
        return Program(sentence=sentence(spec.command, ended.message), architecture=ended.message)
    try:
        found = told(spec, Path(spec.folder))
        missing = None if found else lacking(spec, Path(spec.folder))
    except OSError:
        return None
    if found:
        return Program(sentence=f"{found[0]} is a program for {found[1]}", architecture=found[1])
    return Program(sentence=missing, architecture="") if missing else None


def told(spec: CellSpec, folder: Path) -> tuple[str, str] | None:
    """A program that a script of the user's named, and what it is for, where a shell could not run it.

    OSError where the command's stderr cannot be read.
    """
    if spec.work_tree is None:
        return None
    for name in elf.named_by_shells(_stderr(folder)):
        path = elf.in_tree(name if "/" in name else f"./{name}", spec.work_tree)
        found = of_file(path, spec.arch) if path is not None else None
        if found is not None:
            return name, found
    return None


def _stderr(folder: Path) -> bytes:
    with (folder / "stderr").open("rb") as file:
        return file.read(_LOOKED_AT)


def lacking(spec: CellSpec, folder: Path) -> str | None:
    """What a program or script of the user's needs that the guest lacks, where a shell "did not find"
    it though it is there: that is what the kernel says of an interpreter.

    OSError where the command's stderr cannot be read.
    """
    if spec.work_tree is None:
        return None
    for name in elf.not_found(_stderr(folder)):
        path = elf.in_tree(name, spec.work_tree)
        if path is None or not os.access(path, os.X_OK):
            continue
        needed = elf.interpreter_of(path)
        if needed is not None and needed.startswith("/") and needed not in _ALWAYS_THERE:
            return f"{name} needs {needed}, which the guest does not have" + _way_out(spec, path)
    return None


def _way_out(spec: CellSpec, path: Path) -> str:
    ways = ["link it with -static"] if elf.machine_of(path) is not None else []
    if spec.base == SMALL:
        ways.append("take a Debian: --image debian")
    return f" ({', or '.join(ways)})" if ways else ""
