"""Writes the run layer: the files that tell one guest what to do (command, environment, profiles)."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from quizmatrix.core import paths, skeleton
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model import testchoice, user
from quizmatrix.model.spec import ActiveProfile, CellSpec, Session, Share
from quizmatrix.model.user import BUSYBOX, SHELL
from quizmatrix.run import boundfile, foreign, headstart, joinfiles, mappedroot
from quizmatrix.run.cellfolder import artifacts_of, own_files_of, run_layer_of, write_for_guest

_OPERATORS = frozenset({"&&", "||", "|"})
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The file with the values of variables that are passed on, in the run layer and so in the guest.
PASSED_ON = ".quizmatrix/passed-on"

# Of a session: runs what follows as its user.
_BECOME_USER = (BUSYBOX, "sh", "/.quizmatrix/session-user")
# The shell command that sets the environment of a terminal session.
SESSION_START = ". /.quizmatrix/session-environment"

# Folders of the guest's root that a work tree of the same path would hide.
GUEST_FOLDERS = frozenset(
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
    """The argv that the guest executes for COMMAND.

    A single word is a script for sh. Among several words, `&&`, `||` and `|` are shell operators; all other
    words reach the command unchanged.
    """
    if len(command) == 1:
        return [SHELL, "-c", command[0]]
    if _OPERATORS.isdisjoint(command):
        # Through a shell, so that its builtins work. It execs the command, so that signals reach that.
        return [SHELL, "-c", '"$@"', "sh", *command]
    words = (word if word in _OPERATORS else shlex.quote(word) for word in command)
    return [SHELL, "-c", " ".join(words)]


def _own_environment(spec: CellSpec) -> dict[str, str]:
    environment = {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "QUIZMATRIX_CELL": spec.labels.cell,
        "QUIZMATRIX_KERNEL": spec.labels.kernel,
        "QUIZMATRIX_ARCH": spec.machine.arch.name,
        "QUIZMATRIX_PROFILES": ",".join(profile.name for profile in spec.command.profiles),
        "QUIZMATRIX_TIMEOUT_FACTOR": f"{spec.machine.timeout_factor:g}",
    }
    for profile in spec.command.profiles:
        environment |= profile.environment
    if spec.labels.task is not None:
        environment |= spec.labels.task.environment
    environment |= spec.command.tests.environment
    if handed := spec.files.handed_disks:
        environment["QUIZMATRIX_DISKS"] = " ".join(f"/dev/{disk.serial}" for disk in handed)
    if spec.files.work_tree is not None and spec.files.work_tree.typed is not None:
        # A shell keeps PWD if it names the working directory (POSIX, sh, PWD).
        environment["PWD"] = spec.files.work_tree.typed
    return environment | spec.command.environment


def _start_of(spec: CellSpec) -> str:
    """The folder that the command is run in."""
    return spec.files.work_tree.path if spec.files.work_tree else "/root"


def command_environment(spec: CellSpec) -> dict[str, str]:
    """The command's environment, but for variables whose values are not stored."""
    environment = {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        **_own_environment(spec),
    }
    # The script that sets the others needs a PATH.
    own = {name: value for name, value in environment.items() if name not in spec.command.passed_on}
    return {"PATH": _PATH, **own}


def before_script(spec: CellSpec) -> str:
    """The script that does what has to be done before the command, and execs its arguments; empty if nothing.

    It sets the environment anew: its own variables may have changed that.
    """
    text = _read_passed_on(spec) + foreign.guest_check(spec)
    text += user.become(spec.command.user) if spec.command.user is not None else ""
    if not text:
        return ""
    settings = [shlex.quote(f"{name}={value}") for name, value in command_environment(spec).items()]
    settings += [f'{name}="$passed_{name}"' for name in spec.command.passed_on]
    return f'{text}exec {BUSYBOX} env -i {" ".join(settings)} "$@"\n'


def _zero_ended(texts: Iterable[str]) -> str:
    return "".join(f"{text}\0" for text in texts)


def session_environment(spec: CellSpec) -> str:
    """Shell lines that begin a terminal session or an `exec`: environment and folder of the run's command."""
    folder = f"cd {shlex.quote(_start_of(spec))}"
    tree = spec.files.work_tree
    typed = f"cd {shlex.quote(tree.typed)} 2>/dev/null || " if tree and tree.typed else ""
    environment = _own_environment(spec)
    passed_on = [name for name in environment if name in spec.command.passed_on]
    own = _exports({name: value for name, value in environment.items() if name not in passed_on})
    own += "".join(f'export {name}="$passed_{name}"\n' for name in passed_on)
    return f"{_read_passed_on(spec)}{own}{typed}{folder}"


def _read_passed_on(spec: CellSpec) -> str:
    """The shell line that reads the passed-on variables from their file, which is removed after the run."""
    return f"[ -e /{PASSED_ON} ] && . /{PASSED_ON}\n" if spec.command.passed_on else ""


def _exports(environment: dict[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())


def session_script(session: Session) -> str:
    """The script that a terminal session runs."""
    words = shlex.join(guest_argv(session.command))
    shell = "[ -x /bin/bash ] && SHELL=/bin/bash exec /bin/bash\nexec /bin/sh"
    term = f"export TERM={shlex.quote(session.term)}\n" if session.term else ""
    return f"{term}{SESSION_START}\n{f'exec {words}' if session.command else shell}"


def exec_line(command: list[str], user: str | None) -> str:
    """What root's shell runs for an `exec` beside a session. user: who runs the command instead of root."""
    line = f"{SESSION_START}; exec {shlex.join(guest_argv(command))}"
    return line if user is None else f"exec {shlex.join([*_BECOME_USER, SHELL, '-c', line])}"


def _session_files(spec: CellSpec, session: Session) -> dict[str, str]:
    files = {"session-environment": session_environment(spec), "session": session_script(session)}
    words = [SHELL, "/.quizmatrix/session"]
    if session.user is not None:
        # The terminal is root's so far.
        own = '[ -t 0 ] && chown "$uid" "$(tty)"\n'
        files["session-user"] = f'{user.become(session.user)}{own}exec "$@"\n'
        words = [*_BECOME_USER, *words]
    files["session-words"] = _zero_ended(words)
    if session.window is not None:
        columns, rows = session.window
        files["session-window"] = f"{rows} {columns}"
    return files


def work_tree_of(folder: Path) -> str | None:
    """The path of `folder` if the guest can have it at the same path; otherwise None.

    The guest cannot if it has a folder of its own there, or if the path has a line break: init1 reads it as a
    line.
    """
    parts = folder.absolute().parts
    if "\n" in str(folder):
        return None
    if len(parts) < 2 or (parts[1] in GUEST_FOLDERS and len(parts) < 3):
        return None
    own = parts[1] in GUEST_FOLDERS - {"root", "var"}
    return None if own else str(folder.absolute())


def why_not_shown(folder: Path) -> str:
    """Why `work_tree_of` returns None for a folder."""
    if "\n" in str(folder):
        return "as there is a line break in its name"
    return f"which has a {'/'.join(folder.absolute().parts[:2]).replace('//', '/')} of its own"


def _check_binds(spec: CellSpec) -> None:
    """Raises UnpreparedError if the guest could write to its own run directory.

    The host writes there by path. A guest that can rename or link files there could redirect those writes.
    """
    folder = Path(spec.files.folder).resolve()
    for bind in spec.files.binds:
        if bind.writable and not bind.is_file and folder.is_relative_to(Path(bind.path).resolve()):
            raise UnpreparedError(
                f"{bind.path} cannot be bound for writing",
                cause=f"the run directory {folder.parent} is in it, and is not the guest's to change",
                next_step="Bind it read-only (`:ro`), bind a folder in it, or name another --output.",
            )


def write_run_layer(spec: CellSpec, marker: str) -> list[Share]:
    """Write the cell's run layer and return all shares of its guest.

    marker: ends the command's output streams. Raises OSError if a file cannot be written, UnpreparedError if
    the guest could write to its own run directory.
    """
    if spec.machine.kernel.has_9p:
        _check_binds(spec)
    folder = Path(spec.files.folder)
    layer, artifacts = run_layer_of(folder), artifacts_of(folder)
    headstart.make_folders(spec.labels.cell, folder)
    # The run layer is first: the guest knows its slot.
    shares = [Share(tag="run", path=str(layer)), *spec.files.layers]
    model = mappedroot.prepare(artifacts) if spec.machine.kernel.has_9p else mappedroot.Model.NONE
    shares.append(Share(tag="shared", path=str(artifacts), writable=True, security_model=model.value))
    shares += boundfile.shares_of(spec)
    if spec.files.work_tree is not None:
        shares.append(Share(tag="work", path=spec.files.work_tree.host_path))
    own = own_files_of(folder)
    files = joinfiles.files(spec, shares)
    headstart.make_own_files_for(spec.labels.cell, folder, files, joinfiles.ahead(spec, files))
    for number, profile in enumerate(spec.command.profiles):
        _write_profile(profile, layer, own / "profiles" / f"{number:02}-{profile.name}")
    for name, text in _files(spec, marker).items():
        write_for_guest(own / name, text + "\n")
    for variable, text in spec.command.tests.files.items():
        path = layer / testchoice.path_of(variable)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o755)
        write_for_guest(path, text)
    return shares


def _files(spec: CellSpec, marker: str) -> dict[str, str]:
    """The other files in the guest's /.quizmatrix: texts by name."""
    files = {
        "folder": _zero_ended([_start_of(spec)]),
        "environment": _zero_ended(f"{name}={value}" for name, value in command_environment(spec).items()),
        "end-marker": marker,
    }
    words = guest_argv(spec.command.words)
    if before := before_script(spec):
        files["before"] = before
        words = [BUSYBOX, "sh", "/.quizmatrix/before", *words]
    files["words"] = _zero_ended(words)
    if spec.command.passed_on:
        files[Path(PASSED_ON).name] = "\n".join(
            f"passed_{name}={shlex.quote(spec.command.environment[name])}" for name in spec.command.passed_on
        )
    if spec.command.session is not None:
        files |= _session_files(spec, spec.command.session)
    if spec.keeps.counters:
        files["counters"] = (paths.data_dir("guest") / "counters").read_text(encoding="utf-8")
    if spec.files.handed_disks:
        files["sync"] = "what the command wrote is for another guest"
    if spec.command.stdin is not None:
        files["stdin"] = "the command has one"
    return files


def _write_profile(profile: ActiveProfile, layer: Path, own: Path) -> None:
    own.mkdir(parents=True)
    if profile.files is not None:
        _copy_files(Path(profile.files), layer)
    for name, text in profile.texts.items():
        path = layer / skeleton.guest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_for_guest(path, text)
    write_for_guest(own / "environment", _exports(profile.environment))
    if profile.init:
        write_for_guest(own / "init", profile.init)


def _copy_files(files: Path, layer: Path) -> None:
    """Copy a profile's files into the run layer."""
    for path in sorted(files.iterdir()):
        target = layer / skeleton.guest_path_of_entry(path)
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target, follow_symlinks=False)


def clean_run_layer(folder: Path) -> None:
    """Remove secrets from a used run layer, and the end marker, which would be noise with reproduce.sh."""
    for name in (".quizmatrix/end-marker", PASSED_ON):
        (run_layer_of(folder) / name).unlink(missing_ok=True)
