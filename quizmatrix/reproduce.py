"""reproduce.sh: a cell's QEMU by hand, and the command that repeats the cell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from quizmatrix import paths, process, qemu
from quizmatrix.spec import CellSpec, Share

# Stands in the command line where the script puts a path of its own.
_CONTROL = "@control@"

_TEMPLATE = """\
#!/bin/sh
# The cell {cell}. To repeat it with all its checks:
#
#   cd {cwd} && {again}
#
# Below, the same guest by hand: its console and the command's stderr come to this terminal's
# stderr, the command's stdout to its stdout, and the guest's last message to stderr. QEMU ends
# two seconds after that, or with Ctrl-C.
set -eu
dir=$(mktemp -d)
feeder=
trap 'rm -rf "$dir"; kill $feeder 2>/dev/null || :' EXIT
mkfifo "$dir/control.in" "$dir/control.out"
# The guest waits to be told to start; the port has to stay open behind that.
{{ echo '{{"op":"start"}}'; exec sleep 1000000; }} >"$dir/control.in" &
feeder=$!
{{ grep -m1 -E '"event":"(exited|failed)"' <"$dir/control.out" >&2; sleep 2; kill "$(cat "$dir/pid")"; }} &

# Pipes, since QEMU opens its outputs anew by name: a file would be written from its beginning.
{{
{argv} \\
  -pidfile "$dir/pid" 2>&1 >&3 3>&- | cat >&2
}} 3>&1 | cat
"""

_TEMPLATE_WITHOUT_9P = """\
#!/bin/sh
# The cell {cell}, once more. Its kernel has no 9p, so its layers are disks that are made for each run.
cd {cwd} && exec {again}
"""


def write_script(spec: CellSpec, shares: list[Share]) -> None:
    """Write reproduce.sh into the cell's folder; OSError where the disk does not take it."""
    chardevs = {
        "console": "file,path=/dev/stderr,append=on",
        "control": "pipe,path=" + _CONTROL,
        "stdout": "file,path=/dev/stdout,append=on",
        "stderr": "file,path=/dev/stderr,append=on",
    }
    argv = qemu.command_line(spec, shares, chardevs)
    again = process.printable(_again(spec))
    text = (_TEMPLATE if spec.has_9p else _TEMPLATE_WITHOUT_9P).format(
        cell=spec.cell,
        cwd=shlex.quote(spec.work_tree or "/"),
        again=again.replace("\n", "\n#   ") if spec.has_9p else again,
        argv=_an_option_a_line(argv).replace(
            f"pipe,id=control,path={_CONTROL}", '"pipe,id=control,path=$dir/control"'
        ),
    )
    path = Path(spec.folder) / "reproduce.sh"
    paths.write_atomic(path, text.encode(errors="surrogateescape"))
    path.chmod(0o755)


# The commands that the templates above hold.
_COMMAND = re.compile(r"^#   (cd .*?)\n#\n|^(cd .*? && )exec (.*)\n\Z", re.MULTILINE | re.DOTALL)


def command_in(folder: Path) -> str:
    """The command line that repeats a cell, out of its folder's reproduce.sh; empty where there is none."""
    try:
        text = (folder / "reproduce.sh").read_text(errors="replace")
    except OSError:
        return ""
    match = _COMMAND.search(text)
    if match is None:
        return ""
    return match[1].replace("\n#   ", "\n") if match[1] else match[2] + match[3]


def _again(spec: CellSpec) -> list[str]:
    """The command line that runs the cell with the same limits and layers."""
    timeout = spec.timeout / spec.arch.facts.timeout_factor.of(spec.accelerator)
    again = ["quizmatrix", "run", "--only", spec.cell, "--memory", f"{spec.memory}M"]
    again += ["--cpus", str(spec.cpus), "--timeout", f"{timeout:g}s", "--image", spec.base]
    for profile in spec.profiles:
        again += ["-p", profile.asked]
    for bind in spec.binds:
        again += ["--bind", f"{bind.path}:{bind.guest}{'' if bind.writable else ':ro'}"]
    for name, value in spec.environment.items():
        again += ["--env", f"{name}={value}"]
    again += ["--user", spec.user] if spec.user else []
    for layer in spec.layers:
        if layer.tag.startswith("user"):
            again += ["--layer", layer.path]
    return [*again, *([] if spec.work_tree else ["--no-work-tree"]), "--", *spec.command]


def _an_option_a_line(argv: list[str]) -> str:
    """The command line for a shell, its options one below the other."""
    text = shlex.quote(argv[0])
    for word in argv[1:]:
        text += (" \\\n  " if word.startswith("-") else " ") + shlex.quote(word)
    return text
