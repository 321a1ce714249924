"""Writes gdb.sh, a script that attaches gdb(1) to a running guest."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from quizmatrix.core import paths
from quizmatrix.model.spec import CellSpec

SCRIPT = "gdb.sh"
SOCKET = "gdb.sock"

_TEMPLATE = """\
#!/bin/sh
# Attaches gdb to the guest of {cell}, as long as it runs{note}.
exec {gdb} -ex {attach} "$@"{symbols}
"""


def socket_of(spec: CellSpec) -> str:
    """The UNIX socket on which QEMU listens for gdb (QEMU's option -gdb)."""
    return f"{spec.files.folder}/{SOCKET}"


def remove_socket(spec: CellSpec) -> None:
    """Remove the socket of a guest that has ended: QEMU leaves it."""
    with contextlib.suppress(OSError):
        Path(socket_of(spec)).unlink()


def write_script(spec: CellSpec) -> None:
    """Write gdb.sh into the cell's folder; OSError if it cannot be written."""
    text = _TEMPLATE.format(
        cell=spec.labels.cell,
        note="" if spec.machine.kernel.symbols else "; its kernel came without symbols",
        gdb="gdb" if spec.machine.arch.is_native else "gdb-multiarch",
        attach=shlex.quote(f"target remote {socket_of(spec)}"),
        symbols=f" {shlex.quote(spec.machine.kernel.symbols)}" if spec.machine.kernel.symbols else "",
    )
    path = Path(spec.files.folder) / SCRIPT
    paths.write_atomic(path, text.encode(errors="surrogateescape"))
    path.chmod(0o755)
