"""Files in places that a guest writes to, or has written to: nothing here follows what it left there.

A guest leaves what it likes in its /shared: symbolic links to files of the host, FIFOs that block who opens
them, devices, trees deeper than any path, names with escape sequences. What the host reads or writes there
goes through this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from quizmatrix import process
from quizmatrix.errors import QuizmatrixError
from quizmatrix.text import clean_line

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
    links: list[Path] = []
    root = str(folder)
    folder.chmod(0o755)
    folders = [root]
    # Not os.walk, which recurses: the guest decides how deep this is.
    while folders:
        here = folders.pop()
        below: list[str] = []
        try:
            for entry in _entries(here):
                if _make_entry_safe(root, entry, links, changed):
                    below.append(entry.path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            # What no path reaches, nobody can read either. rm(1) goes down without paths, however deep.
            process.ask(["rm", "-rf", "--", here], limit=_REMOVING_LIMIT)
            changed.append(f"{_shown(root, here)} was too deep; removed")
            continue
        folders += below
    # Behind all that: where a folder cannot be read yet, nobody knows which of the names in it are links.
    for link in links:
        with contextlib.suppress(FileNotFoundError):  # removed with what was too deep
            target = link.readlink()
            if make_link_safe(root, link):
                changed.append(f"{_shown(root, str(link))} was a symbolic link to {clean_line(str(target))}")
    return changed


def _shown(root: str, path: str) -> str:
    return clean_line(os.path.relpath(path, root))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; one at a time, since a guest decides how much that is."""
    with os.scandir(folder) as entries:
        yield from entries


def _make_entry_safe(root: str, entry: os.DirEntry[str], links: list[Path], changed: list[str]) -> bool:
    """The same for one of a folder's entries; whether it is a folder. A link is added to `links`."""
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        links.append(Path(entry.path))
    elif stat.S_ISDIR(mode):
        if mode & stat.S_IRWXU != stat.S_IRWXU or mode & (stat.S_ISUID | stat.S_ISGID):
            Path(entry.path).chmod(stat.S_IMODE(mode) & 0o777 | stat.S_IRWXU)
        return True
    elif not stat.S_ISREG(mode):
        Path(entry.path).unlink()
        changed.append(f"{_shown(root, entry.path)} was no file; removed")
    elif mode & (stat.S_ISUID | stat.S_ISGID):
        Path(entry.path).chmod(stat.S_IMODE(mode) & 0o777)
        changed.append(f"{_shown(root, entry.path)} was set-user-ID")
    return False


def make_link_safe(root: str, link: Path) -> bool:
    """Turn a symbolic link below `root` into a text file where it leads out; whether it did."""
    if not leads_out(root, link):
        return False
    target = link.readlink()
    link.unlink()
    with os.fdopen(create(link, mode=0o644), "wb") as file:
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
