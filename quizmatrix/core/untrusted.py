"""Safe access to folders that a guest has written to: no symlink is followed, no FIFO is waited for.

A guest can leave anything in its /shared: symlinks to files of the host, FIFOs that block their reader,
devices, trees deeper than any path, names with escape sequences. The host reads and writes there only
through this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.text import clean_line

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

# O_NONBLOCK: opening a FIFO does not wait. O_NOCTTY: a terminal does not become ours.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Seconds for rm(1) to remove what is too deep.
_REMOVING_LIMIT = 600.0

# Parts of a link's way that are looked at; no honest link has more, and each costs a system call.
_MOST_PARTS = 100

# Changes that are told of in words; of more only their number is known.
_MOST_WORDS = 1000


def open_folder(path: StrOrBytesPath, *, at: int | None = None) -> int:
    """A folder's descriptor. at: of the folder that `path` is in. OSError where it is anything else."""
    return os.open(path, _FOLDER, dir_fd=at)


def open_regular(path: StrOrBytesPath, *, at: int | None = None) -> BinaryIO:
    """Open a regular file for reading; OSError where it is anything else, a link to one included."""
    handle = os.open(path, _READ, dir_fd=at)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fsdecode(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_end(path: Path, size: int) -> bytes:
    """The last `size` bytes of a regular file."""
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size)


def create(path: StrOrBytesPath, *, at: int | None = None, mode: int = 0o600) -> int:
    """A new file's descriptor, to write to; FileExistsError where anything has the name, a link included."""
    return os.open(path, _CREATE, mode, dir_fd=at)


def make_folder(name: bytes, *, at: int) -> int:
    """The descriptor of a folder that is there, or is made; OSError where anything else has the name."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)
    return open_folder(name, at=at)


def put_link(target: bytes, name: bytes, *, at: int) -> None:
    """Make a symbolic link, in place of a file or link of that name; OSError where that is a folder."""
    made = f".{secrets.token_hex(8)}".encode()
    os.symlink(target, made, dir_fd=at)
    try:
        os.rename(made, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(made, dir_fd=at)
        raise


def move_in(made: Path, folder: Path) -> Path:
    """Move a file of ours into a folder that no guest writes to any more, and return where it is.

    Under its own name, or `NAME-1` and so on where the guest left something of that name. Both are on one
    file system.
    """
    number = 0
    while True:
        target = folder / (f"{made.name}-{number}" if number else made.name)
        # Not Path.exists, which follows a link: rename(2) replaces one, and would lose what the guest left.
        if not os.path.lexists(target):
            made.rename(target)
            return target
        number += 1


async def remove(path: Path) -> list[str]:
    """Remove a folder, or a file, and all that is in it; what has stayed, in words.

    By rm(1), which goes down without paths, however deep, and follows no link.
    """
    try:
        done = await process.run(["rm", "-rf", "--", str(path)])
    except QuizmatrixError as error:
        return [str(error)]
    return [f"{path} could not be removed: {clean_line(done.last_words)}"] if done.status else []


def has_more_than(folder: Path, files: int) -> bool:
    """Whether there are more files in a folder, folders included; also where some of it cannot be read."""
    folders, found = [str(folder)], 0
    try:
        while folders:
            for entry in _entries(folders.pop()):
                found += 1
                if found > files:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    except OSError:
        return True
    return False


def make_safe(folder: Path) -> list[str]:
    """Take the teeth out of what a guest left in `folder`; returns what was changed, a line each.

    A symbolic link to the host's files, which a reader on the host would follow, becomes a text file that
    names its target; devices, FIFOs and sockets go; set-user-ID bits are cleared; folders that could not be
    read or removed are opened to their owner. Links that stay inside are kept. The guest is gone by now.
    """
    changed: list[str] = []
    folder.chmod(0o755)
    if _pass_through(str(folder), _make_file_safe, changed):
        # Behind all the rest: where a folder cannot be read yet, nobody knows which names in it are links.
        _pass_through(str(folder), _make_link_safe, changed)
    return changed


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; one at a time, since a guest decides how much that is."""
    with os.scandir(folder) as entries:
        yield from entries


_Handler = Callable[[str, os.DirEntry[str], int, list[str]], None]


def _pass_through(root: str, handle: _Handler, changed: list[str]) -> bool:
    """Have `handle` see every entry below `root`, with its mode; whether there are links among them.

    What it cannot make safe is removed.
    """
    has_links = False
    folders = [root]
    # Not os.walk, which recurses, and lists: the guest decides how deep this is, and how much is in a folder.
    while folders:
        here = folders.pop()
        try:
            for entry in _entries(here):
                mode = entry.stat(follow_symlinks=False).st_mode
                has_links |= stat.S_ISLNK(mode)
                folders += [entry.path] if stat.S_ISDIR(mode) else []
                try:
                    handle(root, entry, mode, changed)
                except OSError as error:
                    _remove(root, entry.path, f"could not be made safe ({error.strerror})", changed)
        except FileNotFoundError:
            continue  # it was removed with what is around it
        except OSError as error:
            # Of what no path reaches, all of its folder goes.
            is_deep = error.errno == errno.ENAMETOOLONG
            why = "was too deep" if is_deep else f"could not be searched ({error.strerror})"
            _remove(root, here, why, changed)
    return has_links


def _remove(root: str, path: str, why: str, changed: list[str]) -> None:
    # rm(1) goes down without paths, however deep.
    process.ask(["rm", "-rf", "--", path], limit=_REMOVING_LIMIT)
    _note(changed, root, path, f"{why}; removed")


def _note(changed: list[str], root: str, path: str, what: str) -> None:
    # Of a million changes their number is known, and some of the words.
    words = f"{clean_line(os.path.relpath(path, root))} {clean_line(what)}"
    changed.append(words if len(changed) < _MOST_WORDS else "")


def _make_file_safe(root: str, entry: os.DirEntry[str], mode: int, changed: list[str]) -> None:
    if stat.S_ISDIR(mode):
        if mode & stat.S_IRWXU != stat.S_IRWXU or mode & (stat.S_ISUID | stat.S_ISGID):
            Path(entry.path).chmod(stat.S_IMODE(mode) & 0o777 | stat.S_IRWXU)
    elif not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        Path(entry.path).unlink()
        _note(changed, root, entry.path, "was no file; removed")
    elif stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        Path(entry.path).chmod(stat.S_IMODE(mode) & 0o777)
        _note(changed, root, entry.path, "was set-user-ID")


def _make_link_safe(root: str, entry: os.DirEntry[str], mode: int, changed: list[str]) -> None:
    if stat.S_ISLNK(mode):
        target = Path(entry.path).readlink()
        if make_link_safe(root, Path(entry.path)):
            _note(changed, root, entry.path, f"was a symbolic link to {target}")


def make_link_safe(root: str, link: Path) -> bool:
    """Turn a symbolic link below `root` into a text file where it leads out; whether it did."""
    if not leads_out(root, link):
        return False
    target = link.readlink()
    link.unlink()
    # Where the disk is full, that it is gone has to do.
    with contextlib.suppress(OSError), os.fdopen(create(link, mode=0o644), "wb") as file:
        file.write(b"symbolic link to %s\n" % os.fsencode(target))
    return True


def leads_out(root: str, link: Path) -> bool:
    """Whether following `link` could leave `root`, by way of other links too; a loop counts as leading out.

    Nothing outside `root` is looked at. A part that does not exist is taken for a folder.
    """
    place = list(link.parent.relative_to(root).parts)
    ahead = [link.name]
    for _ in range(_MOST_PARTS):
        if not ahead:
            return False
        part = ahead.pop()
        if part == "..":
            if not place:
                return True
            place.pop()
        elif part not in ("", "."):
            try:
                target = os.readlink("/".join((root, *place, part)))  # noqa: PTH115 - keeps a slash at the end
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    return True
                place.append(part)  # no link, or nothing
            else:
                if target.startswith("/"):
                    return True
                ahead += reversed(target.split("/"))
    return True
