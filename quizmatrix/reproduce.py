"""reproduce.sh: a cell's QEMU by hand, and the command that repeats the cell."""

from __future__ import annotations

import shlex
from pathlib import Path

from quizmatrix import paths, process, qemu
from quizmatrix.spec import CellSpec, Share

_TEMPLATE = """\
#!/bin/sh
# What happened in the cell {cell}. To repeat it with all its checks:
#
#   cd {cwd} && {again}
#
# Below, the same guest by hand: its console and the command's stdout and stderr come to this
# terminal, and the guest's own messages are in $dir/control.out. QEMU ends by itself a few
# seconds after the command, or with Ctrl-C.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkfifo "$dir/control.in" "$dir/control.out"
{{ echo '{{"op":"start"}}'; cat >/dev/null <"$dir/done"; }} >"$dir/control.in" 2>/dev/null &
{{ grep -m1 '"event":"\\(exited\\|failed\\)"' <"$dir/control.out" >&2; sleep 2; kill "$(cat "$dir/pid")"; }} &

{argv}
"""


def write_script(spec: CellSpec, shares: list[Share]) -> None:
    """Write reproduce.sh into the cell's folder; OSError where the disk does not take it."""
    chardevs = {
        "console": "file,path=/dev/stderr",
        "control": "pipe,path=@CONTROL@",
        "stdout": "file,path=/dev/stdout",
        "stderr": "file,path=/dev/stderr",
    }
    argv = qemu.command_line(spec, shares, chardevs)
    words = " ".join(shlex.quote(word) for word in argv)
    # One option a line, and the one path that is made anew each time.
    shown = words.replace(" -", " \\\n  -").replace(
        "pipe,id=control,path=@CONTROL@", '"pipe,id=control,path=$dir/control"'
    )
    again = ["quizmatrix", "run", "--only", spec.cell, "--", *spec.command]
    text = _TEMPLATE.format(
        cell=spec.cell,
        cwd=shlex.quote(spec.work_tree or "/"),
        again=process.printable(again).replace("\n", "\n#   "),
        argv=shown + ' \\\n  -pidfile "$dir/pid" || true',
    )
    path = Path(spec.folder) / "reproduce.sh"
    paths.write_atomic(path, text.encode())
    path.chmod(0o755)
