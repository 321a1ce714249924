"""Explains why a guest could not run a program: another architecture, a missing interpreter, no such command.

A shell takes a program of another architecture for a script and reports a syntax error, which looks like a
failure of the tested kernel. For a missing interpreter it reports the program itself as not found.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import msgspec

from quizmatrix.core import elf, paths
from quizmatrix.core.elf import Machine
from quizmatrix.core.nearest import nearest
from quizmatrix.model import profile
from quizmatrix.model.arch import Arch, load_arch, machine_name, machines
from quizmatrix.model.cells import SMALL, Cell
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.user import BUSYBOX
from quizmatrix.run.channel import Message

# A shell's exit statuses for a file that it cannot execute, and for a command that it does not find.
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127

# How similar the name of a provided command is to the one that was meant; see nearest.
_SIMILAR = 0.8

# Interpreters that every image has. If a script for one of these was not found, it is not for their lack.
_ALWAYS_THERE = frozenset({"/bin/sh", "/usr/bin/sh", "/usr/bin/env"})

# Bytes of the command's stderr that are searched.
_STDERR_READ = 1 << 20


def runs_on(arch: Arch) -> set[Machine]:
    """The machines whose programs kernels of an architecture can run."""
    return {arch.machine, *(machines()[name] for name in arch.facts.elf.also)}


def foreign_machine_of(path: Path, arch: Arch) -> str | None:
    """The architecture of a program, if kernels of `arch` cannot run it; otherwise None."""
    machine = elf.machine_of(path)
    return None if machine is None or machine in runs_on(arch) else machine_name(machine)


def before_boot(cell: Cell, command: list[str], work_tree: str | None, hidden: list[str]) -> str | None:
    """The architecture of the command's program, if it is a file in the work tree that the cell cannot run.

    hidden: paths at which the guest has other files. None if the guest can run the program, or if only the
    guest can tell.
    """
    word = elf.program_word(command)
    path = elf.file_in_tree(word, work_tree) if word is not None and work_tree is not None else None
    if path is None or not os.access(path, os.X_OK) or any(path.is_relative_to(place) for place in hidden):
        return None
    # A user's own profile may enable the guest to run other programs (binfmt_misc).
    folders = profile.folders()
    if not all(folders[use.name].is_relative_to(paths.data_dir("guest")) for use in cell.profiles):
        return None
    return foreign_machine_of(path, load_arch(cell.arch))


def sentence(command: list[str], name: str) -> str:
    """`./prog is a program for x86_64`."""
    return f"{elf.program_word(command)} is a program for {name}"


def guest_check(spec: CellSpec) -> str:
    """Shell lines that check the program in the guest, if it may be one of the user's files.

    For a program of another architecture they write its name to the file `foreign` and exit with 126. They
    do nothing if binfmt_misc is mounted: then the kernel may be able to run it.
    """
    word = elf.program_word(spec.command.words)
    are_theirs = any(layer.is_users for layer in spec.files.layers) or spec.files.binds
    if word is None or not ("/" in word or are_theirs or any(one.files for one in spec.command.profiles)):
        return ""
    own = "|".join(sorted(machine.pattern for machine in runs_on(spec.machine.arch)))
    cases = "".join(
        f"    {machine.pattern}) foreign={name} ;;\n"
        for name, machine in machines().items()
        if machine not in runs_on(spec.machine.arch)
    )
    return (
        f"foreign= file=$(command -v {shlex.quote(word)})\n"
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
    """A program that did not run. sentence: why. architecture: its own, if that differs from the guest's."""

    sentence: str
    architecture: str


def failed_program(spec: CellSpec, ended: Message | None) -> Program | None:
    """The program that could not run and so made the command fail, judged by messages of guest and shell."""
    if ended is None or ended.exit_code == 0:
        return None
    if ended.exit_code == EXIT_CANNOT_EXECUTE and ended.message in machines():
        return Program(sentence=sentence(spec.command.words, ended.message), architecture=ended.message)
    try:
        found = named_in_stderr(spec, Path(spec.files.folder))
        missing = None if found else missing_interpreter(spec, Path(spec.files.folder))
        if not found and not missing and ended.exit_code == EXIT_NOT_FOUND:
            missing = provided_command(spec, Path(spec.files.folder))
    except OSError:
        return None
    if found:
        return Program(sentence=f"{found[0]} is a program for {found[1]}", architecture=found[1])
    return Program(sentence=missing, architecture="") if missing else None


def named_in_stderr(spec: CellSpec, folder: Path) -> tuple[str, str] | None:
    """A program of another architecture that a shell could not run, and that architecture.

    Raises OSError if the command's stderr cannot be read.
    """
    work_tree = spec.files.work_tree
    if work_tree is None:
        return None
    for name in elf.not_executable(_stderr(folder)):
        path = elf.file_in_tree(name if "/" in name else f"./{name}", work_tree.host_path)
        found = foreign_machine_of(path, spec.machine.arch) if path is not None else None
        if found is not None:
            return name, found
    return None


def _stderr(folder: Path) -> bytes:
    with (folder / "stderr").open("rb") as file:
        return file.read(_STDERR_READ)


def missing_interpreter(spec: CellSpec, folder: Path) -> str | None:
    """A sentence about a program or script whose interpreter the guest lacks; None if there is none.

    A shell says that such a file was "not found", though it exists: the kernel reports the missing
    interpreter in this way. Raises OSError if the command's stderr cannot be read.
    """
    work_tree = spec.files.work_tree
    if work_tree is None:
        return None
    for name in elf.not_found(_stderr(folder)):
        path = elf.file_in_tree(name, work_tree.host_path)
        if path is None or not os.access(path, os.X_OK):
            continue
        needed = elf.interpreter_of(path)
        if needed is not None and needed.startswith("/") and needed not in _ALWAYS_THERE:
            return f"{name} needs {needed}, which the guest does not have" + _suggestions(spec, path)
    return None


def provided_command(spec: CellSpec, folder: Path) -> str | None:
    """A sentence about a command that was not found, if a profile provides it.

    Of COMMAND's first word, a similar name counts, too. Raises OSError if its stderr cannot be read.
    """
    first, known = elf.first_word(spec.command.words), profile.providers()
    there = {one.name for one in spec.command.profiles}
    for word in elf.not_found(_stderr(folder)):
        near = nearest(word, known, _SIMILAR) if word == first else word
        if near is None or near not in known or there & {*known[near]}:
            continue
        provider = known[near][-1]
        if near == word:
            return f"no guest has `{word}` by itself; the profile {provider} provides it"
        return f"no guest has `{word}`; the profile {provider} provides {near}"
    return None


def _suggestions(spec: CellSpec, path: Path) -> str:
    ways = ["link it with -static"] if elf.machine_of(path) is not None else []
    if spec.files.base == SMALL:
        ways.append("take a Debian: --image debian")
    return f" ({', or '.join(ways)})" if ways else ""
