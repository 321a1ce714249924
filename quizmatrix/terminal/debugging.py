"""Opens a debugger: gdb on a guest that runs, drgn or crash(8) on the memory of one that died."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import anyio
import msgspec

import quizmatrix
from quizmatrix.console import symbols
from quizmatrix.core.errors import HostError, UnpreparedError, UsageError
from quizmatrix.core.json import decode_exactly, encode_exactly
from quizmatrix.core.process import find_program
from quizmatrix.crash import memory
from quizmatrix.crash.memory import KeptMemory
from quizmatrix.kernel import artifact
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from quizmatrix.report.progress import tell
from quizmatrix.run import debugger
from quizmatrix.runs import directory
from quizmatrix.terminal.openguest import folder_of


def debug(place: str, script: list[str]) -> None:
    """Become the debugger of RUN/CELL. script: a drgn script and its arguments; none: an interactive shell.

    Raises UsageError where there is nothing to debug, HostError where the debugger is not installed, and
    UnpreparedError where the kernel has no debug information.
    """
    folder = folder_of(place)
    if (folder / debugger.SOCKET).exists() and directory.is_going_on(folder.parent):
        if script:
            raise UsageError(
                f"{place} still runs", cause="a script reads the memory of a guest that has ended"
            )
        _become([str(folder / debugger.SCRIPT)])
    try:
        known = decode_exactly((folder / memory.FILE).read_bytes(), KeptMemory)
    except FileNotFoundError:
        raise UsageError(
            f"the memory of {place} was not kept",
            next_step="`run -p debug` keeps it of a kernel that panics, `run --on-timeout dump` of one that "
            "hangs",
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / memory.FILE} cannot be read", cause=str(error)) from error
    core = str(folder / known.core)
    has_drgn = importlib.util.find_spec("drgn") is not None
    if not has_drgn and (script or find_program("crash") is None):
        raise HostError("drgn is not installed", next_step="pip install 'quizmatrix[debug]'")
    if script and not Path(script[0]).is_file():
        raise UsageError(f"there is no script {script[0]}")
    vmlinux = str(anyio.run(_vmlinux, known))
    if not has_drgn:
        _become(["crash", vmlinux, core])
    whole = encode_exactly(msgspec.structs.replace(known, core=core, vmlinux=vmlinux)).decode()
    # quizmatrix itself may be found by the current folder, where a guest's files may be; -P leaves that out.
    before = os.environ.get("PYTHONPATH")
    own = str(Path(quizmatrix.__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [own, before]))
    _become([sys.executable, "-P", "-m", "quizmatrix.crash.shell", whole, *script])


async def _vmlinux(known: KeptMemory) -> Path:
    """The kernel with debug information, fetched where the cache lacks it."""
    kernel = artifact.load(known.kernel)
    if kernel is None:
        raise UnpreparedError(
            f"the kernel {known.kernel} is no longer in the cache", next_step="Run the cell again."
        )
    vmlinux = kernel.symbols
    if vmlinux is not None and symbols.has_lines(vmlinux):
        return vmlinux
    if kernel.record.build is not None:
        raise UnpreparedError(
            f"there is no debug information of the kernel {known.kernel}",
            cause="it was built without" if vmlinux else "the folder that it was built in has another by now",
            next_step="Run the cell again, with a kernel of the variant `debug`.",
        )
    from quizmatrix.kernel import debuginfo

    return await debuginfo.obtain(kernel, Order(arch=load_arch(kernel.record.arch), tell=tell))


def _become(argv: list[str]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(argv[0], argv)  # noqa: S606
