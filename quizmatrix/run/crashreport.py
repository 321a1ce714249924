"""Has drgn read the memory of a guest that has ended, and writes crash.txt beside it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import offload, paths, untrusted
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.json import encode_exactly
from quizmatrix.crash import memory
from quizmatrix.crash.memory import KeptMemory
from quizmatrix.model.spec import CellSpec
from quizmatrix.run import findings

FILE = "crash.txt"

# Seconds that a cell's result waits for it. A kernel with 5,000 tasks takes ten.
_LIMIT = 120.0


async def write(spec: CellSpec, core: Path) -> list[str]:
    """Write crash.txt into the folder of `core`; return notes for the user: where it is, or why it is not.

    core: the guest's memory, in a folder that no guest writes to any more. Also writes memory.json for
    `quizmatrix debug`.
    """
    folder = core.parents[1]
    known = _memory_of(spec, core)
    relative = msgspec.structs.replace(known, core=str(core.relative_to(folder)))
    try:
        paths.write_atomic(folder / memory.FILE, encode_exactly(relative))
    except OSError as error:
        return [f"its memory was not read: {error}"]
    if why := _what_lacks(spec, known):
        return [f"drgn can read it: {why}"]
    made = folder / FILE
    try:
        # One at a time: drgn may take gigabytes, and a panic may be that of all cells.
        async with paths.locked(paths.lock_file("drgn"), lambda: None):
            with anyio.fail_after(_LIMIT):
                failure = await offload.call(_read, encode_exactly(known).decode(), str(made), returns=str)
        if not failure:
            moved = untrusted.move_in(made, core.parent)
            return [f"what drgn reads there is in {moved.parent.name}/{moved.name}"]
    except TimeoutError:
        failure = f"drgn took more than {_LIMIT:.0f} s"
    except (OSError, QuizmatrixError) as error:
        failure = str(error)
    finally:
        made.unlink(missing_ok=True)
    return [f"its memory was not read: {failure}"]


def _what_lacks(spec: CellSpec, known: KeptMemory) -> str:
    """What drgn lacks to read it, and how to get that; empty where it lacks nothing."""
    if importlib.util.find_spec("drgn") is None:
        return "`pip install 'quizmatrix[debug]'` installs drgn"
    from quizmatrix.console import symbols
    from quizmatrix.kernel import artifact, debuginfo

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


def _read(known: str, target: str) -> str:
    """In a process of its own: drgn is a large library in C, and a guest's memory may hold anything."""
    from quizmatrix.crash import reading

    return reading.write(known, target)


def _memory_of(spec: CellSpec, core: Path) -> KeptMemory:
    arch = spec.machine.arch.facts
    vmlinux = findings.symbols_of(spec)
    folders = (Path(layer.path, "usr/lib/modules", spec.labels.release) for layer in spec.files.layers)
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
