"""Writes reproduce.sh: it starts a cell's QEMU by hand, and names the command that repeats the cell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.model.cells import SHARED_LIMIT
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import OWN_STDIN, CellSpec, CommandLine, Disk, Share
from quizmatrix.run import boundfile, qemu, runlayer
from quizmatrix.run.cellfolder import run_layer_of

# A placeholder in the command line for a path that the script makes.
_CONTROL = "@control@"

_TEMPLATE = """\
#!/bin/sh
# {what}. To repeat it with all its checks:
#
#   cd {cwd} && {again}
#
# This script boots the same guest by hand. The command's stdout comes to stdout; its stderr, the
# guest's console and the guest's last message come to stderr. QEMU ends two seconds after the
# last message, or with Ctrl-C.
set -eu
dir=$(mktemp -d)
feeder=
trap 'rm -rf "$dir"; kill $feeder 2>/dev/null || :' EXIT
{disks}mkfifo "$dir/control.in" "$dir/control.out"
# The guest waits for this message; the port has to stay open after it.
{{ echo '{{"op":"start"}}'; exec sleep 1000000; }} >"$dir/control.in" &
feeder=$!
{{ grep -m1 -E '"event":"(exited|failed)"' <"$dir/control.out" >&2; sleep 2; kill "$(cat "$dir/pid")"; }} &

# Pipes, because QEMU opens its outputs again by name and would overwrite a file from its beginning.
{{
{argv} \\
  -pidfile "$dir/pid" 2>&1 >&3 3>&- | cat >&2
}} 3>&1 | cat
"""

# Where the guest cannot be booted by hand from what is in the cache.
_TEMPLATE_OF_COMMAND = """\
#!/bin/sh
# {what}, to run it again. {why}
cd {cwd} && exec {again}
"""
_NO_9P = "Its kernel has no 9p, so its layers are disks, which are made for each run."


def write_script(spec: CellSpec, shares: list[Share]) -> None:
    """Write reproduce.sh into the cell's folder; OSError if it cannot be written."""
    if not spec.machine.kernel.has_9p:
        write_command(spec, _NO_9P)
        return
    chardevs = {
        "console": "file,path=/dev/stderr,append=on",
        "control": "pipe,path=" + _CONTROL,
        "stdout": "file,path=/dev/stdout,append=on",
        "stderr": "file,path=/dev/stderr,append=on",
    }
    handed = spec.files.handed_disks
    by_hand = [
        msgspec.structs.replace(disk, path=f"@{disk.serial}@") if disk in handed else disk
        for disk in spec.files.disks
    ]
    if spec.command.stdin is not None:
        chardevs[qemu.STDIN] = "stdio,signal=off"
    files = {f"bind{number}": bind.path for number, bind in enumerate(spec.files.binds) if bind.is_file}
    shares = [
        msgspec.structs.replace(share, path=f"@{share.tag}@") if share.tag in files else share
        for share in shares
    ]
    changed = msgspec.structs.replace(spec.files, disks=by_hand)
    argv = qemu.command_line(msgspec.structs.replace(spec, files=changed), shares, chardevs)
    lines = _an_option_a_line(argv).replace(
        f"pipe,id=control,path={_CONTROL}", '"pipe,id=control,path=$dir/control"'
    )
    for disk in handed:
        lines = lines.replace(f"@{disk.serial}@", f'"$dir"/{disk.serial}')
    for tag in files:
        lines = lines.replace(f"@{tag}@", f'"$dir"/{tag}')
    command = command_line_of(spec)
    text = _TEMPLATE.format(
        what=_what(spec),
        disks=_disks(handed) + _files(files) + _passed_on(spec),
        cwd=shlex.quote(command.folder),
        again=process.printable(command.argv).replace("\n", "\n#   "),
        argv=_stdin(spec) + lines,
    )
    _write(spec, text)


def write_command(spec: CellSpec, why: str) -> None:
    """Write a reproduce.sh that has quizmatrix repeat the cell. why: a sentence. Raises OSError."""
    command = command_line_of(spec)
    cwd, again = shlex.quote(command.folder), process.printable(command.argv)
    _write(spec, _TEMPLATE_OF_COMMAND.format(what=_what(spec), why=why, cwd=cwd, again=again))


def _write(spec: CellSpec, text: str) -> None:
    path = Path(spec.files.folder) / "reproduce.sh"
    paths.write_atomic(path, text.encode(errors="surrogateescape"))
    path.chmod(0o755)


def command_line_of(spec: CellSpec) -> CommandLine:
    """The command line that repeats a cell: derived from the run's own if there is one, else from `spec`."""
    folder = spec.files.work_tree.path if spec.files.work_tree else "/"
    return spec.labels.again or CommandLine(folder=folder, argv=_again(spec))


def command_of(result: CellResult, folder: Path) -> str:
    """The shell command that repeats a cell; empty if unknown.

    folder: of the cell. Its reproduce.sh is read only for results of earlier versions, which lack the command
    line.
    """
    if result.again is None:
        return command_in(folder)
    return f"cd {shlex.quote(result.again.folder)} && {process.printable(result.again.argv)}"


# The commands in the templates above, for run directories without `again` in result.json.
_COMMAND = re.compile(r"^#   (cd .*?)\n#\n|^(cd .*? && )exec (.*)\n\Z", re.MULTILINE | re.DOTALL)


def command_in(folder: Path) -> str:
    """The command line in the reproduce.sh of a cell's folder; empty if there is none."""
    try:
        text = (folder / "reproduce.sh").read_text(errors="replace")
    except OSError:
        return ""
    match = _COMMAND.search(text)
    if match is None:
        return ""
    return match[1].replace("\n#   ", "\n") if match[1] else match[2] + match[3]


def _what(spec: CellSpec) -> str:
    task = spec.labels.task
    if task is None:
        return f"The cell {spec.labels.cell}"
    return f"{task.id}: the cell {spec.labels.cell}, {task.words.about}"


def _disks(handed: list[Disk]) -> str:
    """Shell lines that create or copy the disks that are handed on; empty if there are none."""
    text = ""
    if any(disk.origin for disk in handed):
        text = "# The copied files exist only if the cell that had these disks failed.\n"
    for disk in handed:
        if disk.origin is None:
            text += f'truncate -s {Path(disk.path).stat().st_size} "$dir/{disk.serial}"\n'
        else:
            text += f'cp --sparse=always {shlex.quote(disk.origin)} "$dir/{disk.serial}"\n'
    return text


def _stdin(spec: CellSpec) -> str:
    """The pipe into QEMU if the command has a standard input: from the file, or the script's own stdin."""
    if spec.command.stdin is None:
        return ""
    path = "" if spec.command.stdin == OWN_STDIN else f" {shlex.quote(spec.command.stdin)}"
    return f"{{ echo; exec cat{path}; }} |\n"


def _files(files: dict[str, str]) -> str:
    """Shell lines that make a folder for each bound file; see boundfile."""
    return "".join(
        f'mkdir "$dir/{tag}"\nln -L {shlex.quote(path)} "$dir/{tag}/{boundfile.NAME}" 2>/dev/null ||'
        f' cp {shlex.quote(path)} "$dir/{tag}/{boundfile.NAME}"\n'
        for tag, path in files.items()
    )


def _passed_on(spec: CellSpec) -> str:
    """Shell lines that pass on environment variables with their values in the script's environment.

    The values are in a file only while the guest runs.
    """
    if not spec.command.passed_on:
        return ""
    place = shlex.quote(str(run_layer_of(Path(spec.files.folder)) / runlayer.PASSED_ON))
    text = "# --env NAME: the values are those of this script's environment.\n"
    text += "quoted() { printf '%s\\n' \"$1\" | sed \"s/'/'\\\\\\\\''/g; 1s/^/'/; \\$s/\\$/'/\"; }\n"
    text += f"passed={place}\n"
    text += 'trap \'rm -rf "$dir" "$passed"; kill $feeder 2>/dev/null || :\' EXIT\n'
    lines = "; ".join(
        f'printf \'passed_{name}=%s\\n\' "$(quoted "${{{name}-}}")"' for name in spec.command.passed_on
    )
    return f'{text}(umask 077; {{ {lines}; }} >"$passed")\n'


def _selection(spec: CellSpec) -> list[str]:
    """The arguments that select the cell and its limits, or all cells that the disks went through."""
    if spec.labels.task is not None and spec.labels.matrix is not None:
        cells = dict.fromkeys(spec.labels.task.cells)
        return [spec.labels.matrix, "--only", ",".join(cells)]
    timeout = spec.limits.timeout / spec.machine.timeout_factor
    limits = [
        "--memory",
        f"{spec.machine.memory}M",
        "--cpus",
        str(spec.machine.cpus),
        "--timeout",
        f"{timeout:g}s",
    ]
    if spec.files.shared_limit != SHARED_LIMIT:
        limits += ["--shared-limit", f"{spec.files.shared_limit}M"]
    return ["--only", spec.labels.cell, *limits]


def _again(spec: CellSpec) -> list[str]:
    """A command line with the same settings, for a cell that was not started by a command line."""
    again = ["quizmatrix", "run", *_selection(spec), "--image", spec.files.base]
    for profile in spec.command.profiles:
        again += ["-p", profile.asked]
    for bind in spec.files.binds:
        again += ["--bind", f"{bind.path}:{bind.guest}{'' if bind.writable else ':ro'}"]
    for name, value in spec.command.environment.items():
        again += ["--env", name if name in spec.command.passed_on else f"{name}={value}"]
    again += ["--stdin", spec.command.stdin] if spec.command.stdin not in (None, OWN_STDIN) else []
    again += ["--user", spec.command.user] if spec.command.user else []
    again += ["--on-timeout", "dump"] if spec.keeps.memory else []
    again += ["--append", spec.machine.kernel.parameters] if spec.machine.kernel.parameters else []
    again += ["--numa", str(spec.machine.numa)] if spec.machine.numa > 1 else []
    again += [f"--qemu={shlex.join(spec.machine.qemu_words)}"] if spec.machine.qemu_words else []
    for layer in spec.files.layers:
        if layer.is_users:
            again += ["--layer", layer.path]
    again += [] if spec.files.work_tree else ["--no-work-tree"]
    return again if spec.labels.task is not None else [*again, "--", *spec.command.words]


def _an_option_a_line(argv: list[str]) -> str:
    """The command line for a shell, with each option on its own line."""
    text = shlex.quote(argv[0])
    for word in argv[1:]:
        text += (" \\\n  " if word.startswith("-") else " ") + shlex.quote(word)
    return text
