"""Opens a debugger: gdb on a guest that runs, drgn or crash(8) on the memory of one that died."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import anyio
import msgspec

import quizmatrix
from quizmatrix.core.errors import HostError, UnpreparedError, UsageError
from quizmatrix.core.process import find_program
from quizmatrix.crash import memory
from quizmatrix.crash.memory import KeptMemory
from quizmatrix.kernel import artifact
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from quizmatrix.run import debugger
from quizmatrix.runs import directory
from quizmatrix.terminal.openguest import folder_of


def debug(place: str, script: list[str]) -> None:
    """Become the debugger of RUN/CELL. script: a drgn script and its arguments; none: an interactive shell.

    Raises UsageError where there is nothing to debug, HostError where the debugger is not installed, and
    UnpreparedError where the kernel has no debug information.
    """
    folder = folder_of(place)
    gdb = folder / debugger.SCRIPT
    if directory.is_going_on(folder.parent) and gdb.exists() and not script:
        _become([str(gdb)])
    try:
        known = msgspec.json.decode((folder / memory.FILE).read_bytes(), type=KeptMemory)
    except FileNotFoundError:
        raise UsageError(
            f"the memory of {place} was not kept",
            next_step="`run -p debug` keeps it of a kernel that panics, `run --on-timeout dump` of one that "
            "hangs",
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{folder / memory.FILE} cannot be read", cause=str(error)) from error
    vmlinux = anyio.run(_vmlinux, known)
    if importlib.util.find_spec("drgn") is not None:
        whole = msgspec.structs.replace(known, vmlinux=str(vmlinux))
        argv = [
            sys.executable,
            "-P",
            "-m",
            "quizmatrix.crash.shell",
            msgspec.json.encode(whole).decode(),
            *script,
        ]
        # Where quizmatrix is, but not the current folder: a guest's files may be there.
        os.environ["PYTHONPATH"] = str(Path(quizmatrix.__file__).resolve().parents[1])
        _become(argv)
    if script or find_program("crash") is None:
        raise HostError("drgn is not installed", next_step="pip install 'quizmatrix[debug]'")
    _become(["crash", str(vmlinux), known.core])


async def _vmlinux(known: KeptMemory) -> Path:
    """The kernel with debug information, fetched where the cache lacks it."""
    kernel = artifact.load(known.kernel)
    if kernel is None:
        raise UnpreparedError(
            f"the kernel {known.kernel} is no longer in the cache", next_step="Run the cell again."
        )
    if kernel.symbols is not None:
        return kernel.symbols
    from quizmatrix.kernel import debuginfo

    def tell(said: str) -> None:
        print(f"quizmatrix: {said}", file=sys.stderr)

    return await debuginfo.obtain(kernel, Order(arch=load_arch(kernel.record.arch), tell=tell))


def _become(argv: list[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(argv[0], argv)  # noqa: S606
