"""Has drgn read the memory of a guest that has ended, and writes crash.txt beside it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import offload, paths, untrusted
from quizmatrix.core.errors import QuizmatrixError, host_error
from quizmatrix.core.json import encode_exactly
from quizmatrix.crash import memory
from quizmatrix.crash.memory import KeptMemory, Reading, StoppedTask
from quizmatrix.kernel import artifact, buildlayer, debuginfo
from quizmatrix.model.spec import CellSpec
from quizmatrix.run import findings
from quizmatrix.run.cellfolder import artifacts_of

FILE = "crash.txt"

# Seconds that a cell's result waits for it. A kernel with 5,000 tasks takes ten.
_LIMIT = 120.0


def can_be_read(spec: CellSpec) -> bool:
    """Whether drgn is installed, and has the debug information of the guest's kernel."""
    return not _what_lacks(spec, _memory_of(spec, Path()))


def note(spec: CellSpec, core: Path) -> list[str]:
    """Write memory.json for `quizmatrix debug`; return notes for the user. core: see `write`."""
    folder = Path(spec.files.folder)
    known = msgspec.structs.replace(_memory_of(spec, core), core=str(core.relative_to(folder)))
    try:
        paths.write_atomic(folder / memory.FILE, encode_exactly(known))
    except OSError as error:
        return [str(host_error(f"write {memory.FILE}", error))]
    return []


async def write(spec: CellSpec, core: Path) -> tuple[list[StoppedTask], list[str]]:
    """Write crash.txt into the cell's artifacts/, to which no guest may write any more.

    core: the guest's memory. Returns what the guest's tasks were doing, and notes for the user: where the
    file is, or why there is none.
    """
    known = _memory_of(spec, core)
    if why := _what_lacks(spec, known):
        return [], [f"drgn can read it: {why}"]
    folder = Path(spec.files.folder)
    made = folder / FILE
    read = Reading()
    try:
        with anyio.fail_after(_LIMIT):
            # One at a time: drgn may take gigabytes, and a panic may be that of all cells.
            async with paths.locked(paths.lock_file("drgn"), lambda: None):
                argument = encode_exactly(known).decode()
                read = await offload.call(_read, argument, str(made), returns=Reading)
        if not read.failure:
            moved = untrusted.move_in(made, artifacts_of(folder))
            return read.tasks, [f"what drgn reads in its memory is in {moved.parent.name}/{moved.name}"]
        failure = read.failure
    except TimeoutError:
        failure = f"drgn took more than {_LIMIT:.0f} s, or was busy with others"
    except (OSError, QuizmatrixError) as error:
        failure = str(error)
    finally:
        made.unlink(missing_ok=True)
    return read.tasks, [f"its memory was not read: {failure}"]


def _what_lacks(spec: CellSpec, known: KeptMemory) -> str:
    """What drgn lacks to read it, and how to get that; empty where it lacks nothing."""
    if importlib.util.find_spec("drgn") is None:
        return "`pip install 'quizmatrix[debug]'` installs drgn"
    from quizmatrix.console import symbols

    if known.vmlinux and symbols.has_lines(Path(known.vmlinux)):
        return ""
    if spec.machine.kernel.symbols and not known.vmlinux:
        return "not any more, as the folder that its kernel was built in has another kernel by now"
    try:
        kernel = artifact.load(known.kernel)
    except QuizmatrixError:
        kernel = None
    if kernel is not None and debuginfo.is_of_debian(kernel):
        return f"`quizmatrix kernel debug-info {known.kernel}` fetches what it needs"
    return "a kernel of the variant `debug` has the debug information that it needs"


def _read(known: str, target: str) -> Reading:
    """In a process of its own: drgn is a large library in C, and a guest's memory may hold anything."""
    from quizmatrix.crash import reading

    return reading.write(known, target)


def _memory_of(spec: CellSpec, core: Path) -> KeptMemory:
    arch = spec.machine.arch.facts
    vmlinux = findings.symbols_of(spec)
    folders = [Path(layer.path, "usr/lib/modules", spec.labels.release) for layer in spec.files.layers]
    # Those of other modules, or of other builds, do no harm: drgn compares their build IDs.
    built = buildlayer.references(spec.machine.kernel.key)
    folders += [Path(found.unstripped) for found in built if found.unstripped]
    return KeptMemory(
        core=str(core),
        architecture=arch.drgn,
        bits=arch.elf.bits,
        is_little_endian=arch.byte_order == "little",
        size=spec.machine.memory,
        kernel=spec.machine.kernel.key,
        release=spec.labels.release,
        vmlinux=str(vmlinux or ""),
        modules=[str(folder) for folder in folders if folder.is_dir()],
        registers=arch.registers,
    )
