"""The sandbox for programs that came with somebody's source: no network, and one folder that they may write.

It is bubblewrap(1), which makes it of user, mount, PID, IPC and network namespaces. The program sees this
host's programs and libraries, read-only, and neither homes nor sockets of services.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from quizmatrix.core import process
from quizmatrix.core.errors import HostError

PROGRAM, PACKAGE = "bwrap", "bubblewrap"

# Entries of the host's root that a program in the sandbox sees, beside `lib*`: programs and their settings.
# Not homes, which may be anywhere, nor what services keep.
_SHOWN = frozenset({"bin", "etc", "gnu", "nix", "opt", "sbin", "usr"})
_SETTINGS = Path("/etc")

# How many processes a sandbox may have. The kernel does not count those of root.
_PROCESSES = 4096

# Without --new-session: process.py starts everything in a session of its own, without a terminal.
_BASE = ("--die-with-parent", "--unshare-all", "--unshare-user", "--cap-drop", "ALL")


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandboxed program may touch.

    folder: where it is started. readable: files and folders that it may read at their own paths, beside the
    host's programs. shown: the same, by other paths. writable: folders that it may change, by their paths in
    the sandbox. links: symlinks, path: target. Their paths may be below /lib/modules, where the host's own
    modules are hidden, and below /usr/src.
    """

    folder: str
    readable: Sequence[Path] = ()
    shown: Mapping[str, Path] = {}
    writable: Mapping[str, Path] = {}
    links: Mapping[str, str] = {}

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` in the sandbox."""
        words = [process.require_program(PROGRAM, PACKAGE), *_BASE]
        for entry in sorted(Path("/").iterdir()):
            if entry.name in _SHOWN or entry.name.startswith("lib"):
                words += _same(entry)
        words += _without_secrets(_SETTINGS)
        words += [*_opened(Path("/usr/src")), *_opened(_modules(), show=False)]
        opened = [words[at + 1] for at, word in enumerate(words) if word == "--tmpfs"]
        words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/run"]  # noqa: S108
        for path in dict.fromkeys(self.readable):
            words += ["--ro-bind-try", str(path), str(path)]
        for place, path in self.shown.items():
            words += ["--ro-bind", str(path), _real(place)]
        for place, path in self.writable.items():
            words += ["--bind", str(path), _real(place)]
        for place, target in self.links.items():
            words += ["--symlink", target, _real(place)]
        words += ["--setenv", "HOME", "/tmp", "--setenv", "TMPDIR", "/tmp"]  # noqa: S108
        for place in (*opened, "/"):
            words += ["--remount-ro", place]
        words += ["--chdir", self.folder, "--"]
        return [*words, "prlimit", f"--nproc={_PROCESSES}", "--core=0", "--", *argv]


def shows(place: str, target: Path) -> bool:
    """Whether a path is in the sandbox without a link: it is `target` or in that, or the host's own."""
    if place.startswith("/lib/modules/"):
        # The host's own are hidden, and so are its links there.
        return Path(_real(place)).is_relative_to(target)
    return Path(place).resolve().is_relative_to(target) or os.path.lexists(place)


def require() -> None:
    """Raise HostError where this host has no sandbox: the program is missing, or namespaces are forbidden."""
    program = process.require_program(PROGRAM, PACKAGE)
    said = _trial(program)
    if said is not None:
        raise HostError(
            "this host lets its users make no sandbox",
            cause=said or "bwrap failed",
            next_step="User namespaces are switched off: see user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns in sysctl(8); "
            "a container needs the right to make them.",
        )


@cache
def _trial(program: str) -> str | None:
    """What the program says where it cannot make a sandbox; None where it can."""
    argv = [program, *_BASE, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    done = process.run_blocking(argv)
    return None if done.status == 0 else done.last_words


def _same(path: Path) -> list[str]:
    """Words that show an entry of the host's at its own path."""
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)]


def _without_secrets(folder: Path) -> list[str]:
    """Words that hide what we can read below a folder, and not everybody: root can read all passwords."""
    words: list[str] = []
    for top, folders, names in os.walk(folder):
        for name in sorted((*folders, *names)):
            path = Path(top, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) and mode & 0o005 != 0o005:
                folders.remove(name)
                words += ["--tmpfs", str(path)]
            elif not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode) or mode & 0o004):
                words += ["--ro-bind", os.devnull, str(path)]
    return words


def _modules() -> Path:
    """Where the host keeps the modules of its kernels."""
    return Path("/lib").resolve() / "modules"


def _real(place: str) -> str:
    """A place in the sandbox, where /lib may be a symlink."""
    return str(_modules() / Path(place).relative_to("/lib/modules")) if place.startswith("/lib/") else place


def _opened(folder: Path, *, show: bool = True) -> list[str]:
    """Words that make one of the host's folders a place to which more can be added.

    show: with the host's entries. Where there is no such folder, its parent is opened, which is read-only.
    """
    words = [] if folder.is_dir() else _opened(folder.parent)
    words += ["--tmpfs", str(folder)]
    for entry in sorted(folder.iterdir()) if show and folder.is_dir() else ():
        words += _same(entry)
    return words
