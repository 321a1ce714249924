"""The host's half of the guest: the run layer, and what a guest leaves behind in /shared."""

from __future__ import annotations

import errno
import shlex
import shutil
import stat
from pathlib import Path

from quizmatrix import process
from quizmatrix import spec as specs
from quizmatrix.spec import HANDED_DISK, ActiveProfile, CellSpec, Session, Share

_OPERATORS = frozenset({"&&", "||", "|"})
# By its path: busybox, which starts the command, would take `sh` for its own, whatever the image has.
_SHELL = "/bin/sh"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Takes the environment of a terminal session.
SESSION_START = ". /.quizmatrix/session-environment"

# Guest folders that a work tree of the same path would hide.
TAKEN = frozenset(
    [
        "bin",
        "boot",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "layers",
        "proc",
        "root",
        "run",
        "sbin",
        "shared",
        "sys",
        "usr",
        "var",
    ]
)


def guest_argv(command: list[str]) -> list[str]:
    """What the guest executes for the words of COMMAND.

    One single word is a script for its sh; among several, `&&`, `||` and `|` are the shell's
    operators; every other word arrives as it was given.
    """
    if len(command) == 1:
        return [_SHELL, "-c", command[0]]
    if _OPERATORS.isdisjoint(command):
        # A shell, so that its builtins work; it becomes the command, so that signals are exact.
        return [_SHELL, "-c", '"$@"', "sh", *command]
    words = (word if word in _OPERATORS else shlex.quote(word) for word in command)
    return [_SHELL, "-c", " ".join(words)]


def _own_environment(spec: CellSpec) -> dict[str, str]:
    environment = {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "QUIZMATRIX_CELL": spec.cell,
        "QUIZMATRIX_KERNEL": spec.kernel,
        "QUIZMATRIX_ARCH": spec.arch.name,
        "QUIZMATRIX_PROFILES": ",".join(profile.name for profile in spec.profiles),
    }
    for profile in spec.profiles:
        environment |= profile.environment
    if spec.handed is not None:
        names = [disk.serial for disk in spec.disks if disk.serial.startswith(HANDED_DISK)]
        environment["QUIZMATRIX_HANDOFF"] = spec.handed.step
        environment["QUIZMATRIX_DISKS"] = " ".join(f"/dev/{name}" for name in names)
        environment["QUIZMATRIX_WRITER"] = spec.handed.written_on
    return environment | spec.environment


def command_script(spec: CellSpec) -> str:
    """The script that becomes the command; $1 is where its exit status is written."""
    environment = {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        **_own_environment(spec),
    }
    settings = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    busybox = "/run/quizmatrix/busybox"
    argv = guest_argv(spec.command)
    check = ""
    if spec.user is not None:
        # su(1) sets HOME, USER and the groups; the words arrive as they are.
        # `--`: it would take the words' own options for its.
        argv = [busybox, "su", "-s", _SHELL, "-c", '"$@"', "--", spec.user, "sh", *argv]
        user = shlex.quote(spec.user)
        check = (
            f"{busybox} id {user} >/dev/null 2>&1 || {{ echo quizmatrix: the guest has no user {user} >&2; "
            "exit 125; }\n"
        )
    return (
        f"{check}cd {shlex.quote(spec.work_tree or '/root')} || exit 125\n"
        f"exec {busybox} env -i {settings} \\\n"
        f"  {busybox} setsid {busybox} time -f 'status %x' -o \"$1\" \\\n"
        f"  {shlex.join(argv)}\n"
    )


def session_environment(spec: CellSpec) -> str:
    """What a terminal session, and every visitor's command, begins with: the same as the command's."""
    return f"{_exports(_own_environment(spec))}cd {shlex.quote(spec.work_tree or '/root')}"


def _exports(environment: dict[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())


def session_script(session: Session) -> str:
    """The script that a terminal session runs."""
    words = shlex.join(guest_argv(session.command))
    shell = "[ -x /bin/bash ] && exec /bin/bash\nexec /bin/sh"
    return f"{SESSION_START}\n{f'exec {words}' if session.command else shell}"


def work_tree_of(folder: Path) -> str | None:
    """`folder` if it can be shown to the guest at its own path: not where the guest has its own.

    Nor where its name has a line break: init1 reads it as a line.
    """
    parts = folder.absolute().parts
    if "\n" in str(folder):
        return None
    if len(parts) < 2 or (parts[1] in TAKEN and len(parts) < 3):
        return None
    own = parts[1] in TAKEN - {"root", "var"}
    return None if own else str(folder.absolute())


def write_run_layer(spec: CellSpec, marker: str) -> list[Share]:
    """Write the cell's run layer and return every share of its guest.

    marker: what ends the command's output streams. Raises OSError where the disk does not take it.
    """
    folder = Path(spec.folder)
    layer, artifacts = specs.run_layer_of(folder), specs.artifacts_of(folder)
    own = layer / ".quizmatrix"
    own.mkdir(parents=True)
    artifacts.mkdir()
    files = {
        # A prompt shows a host's name up to the first dot.
        "hostname": spec.cell.replace(".", "_"),
        "command": command_script(spec),
        "end-marker": marker,
        "layers": "\n".join(share.tag for share in spec.layers),
        "disks": "\n".join(disk.serial for disk in spec.disks if disk.writable),
    }
    shares = [*spec.layers, Share(tag="run", path=str(layer))]
    shares.append(Share(tag="shared", path=str(artifacts), writable=True))
    for number, bind in enumerate(spec.binds):
        shares.append(Share(tag=f"bind{number}", path=bind.path, writable=bind.writable))
    files["binds"] = "\n".join(
        f"bind{number} {'rw' if bind.writable else 'ro'} {bind.guest}"
        for number, bind in enumerate(spec.binds)
    )
    if spec.session is not None:
        columns, rows = spec.session.window
        files["terminal"] = spec.session.kind
        files["window"] = f"{rows} {columns} {spec.session.term}"
        files["session-environment"] = session_environment(spec)
        files["session"] = session_script(spec.session)
    for number, profile in enumerate(spec.profiles):
        _write_profile(profile, layer, own / "profiles" / f"{number:02}-{profile.name}")
    if spec.handed is not None:
        files["sync"] = "what the command wrote is for another guest"
    if spec.work_tree is not None:
        files["work-tree"] = spec.work_tree
        shares.append(Share(tag="work", path=spec.work_tree))
    for name, text in files.items():
        # A word of a command need not be UTF-8; Python keeps such bytes as surrogates (PEP 383).
        (own / name).write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
    return shares


def _write_profile(profile: ActiveProfile, layer: Path, own: Path) -> None:
    own.mkdir(parents=True)
    if profile.files is not None:
        shutil.copytree(profile.files, layer, symlinks=True, dirs_exist_ok=True)
    for name, text in profile.texts.items():
        path = layer / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (own / "environment").write_text(_exports(profile.environment), encoding="utf-8")
    if profile.init:
        (own / "init").write_text(profile.init, encoding="utf-8")


def retire_run_layer(folder: Path) -> None:
    """Take the end marker out of a used run layer: by hand (reproduce.sh) it would only be noise."""
    (specs.run_layer_of(folder) / ".quizmatrix/end-marker").unlink(missing_ok=True)


def make_artifacts_safe(artifacts: Path) -> list[str]:
    """Take the teeth out of what a guest left in /shared; returns what was changed.

    The guest may be hostile: a symbolic link to the host's files, which a reader on the host
    would follow, becomes a text file that names its target; devices, FIFOs and sockets go;
    set-user-ID bits are cleared; folders that could not be read or removed are opened to their
    owner. Links that stay inside are kept. The guest is gone by now.
    """
    changed: list[str] = []
    artifacts.chmod(0o755)
    folders = [artifacts]
    # Not os.walk, which recurses: the guest decides how deep this is.
    while folders:
        folder = folders.pop()
        try:
            folders += _make_folder_safe(artifacts, folder, changed)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            # What no path reaches, nobody can read either. rm(1) goes down without paths, however deep.
            process.ask(["rm", "-rf", "--", str(folder)])
            changed.append(f"{folder.relative_to(artifacts)} was too deep; removed")
    return changed


def _make_folder_safe(artifacts: Path, folder: Path, changed: list[str]) -> list[Path]:
    """The same for what is in one folder; returns the folders in it."""
    below = []
    for path in list(folder.iterdir()):
        mode = path.lstat().st_mode
        shown = str(path.relative_to(artifacts))
        if stat.S_ISLNK(mode):
            target = str(path.readlink())
            if _leads_out(artifacts, path):
                path.unlink()
                # x: whatever else the guest left under this name is not written through.
                with path.open("x", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(f"symbolic link to {target}\n")
                changed.append(f"{shown} was a symbolic link to {target}")
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            path.unlink()
            changed.append(f"{shown} was no file; removed")
        elif mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(mode) & 0o777)
            changed.append(f"{shown} was set-user-ID")
        if stat.S_ISDIR(mode):
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                path.chmod(stat.S_IMODE(mode) & 0o777 | stat.S_IRWXU)
            below.append(path)
    return below


def _leads_out(artifacts: Path, link: Path) -> bool:
    """Whether following `link` would leave `artifacts`; a loop counts as leading out."""
    try:
        return not link.resolve().is_relative_to(artifacts.resolve())
    except (OSError, RuntimeError):
        return True
