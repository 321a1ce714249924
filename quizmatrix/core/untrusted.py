"""Safe access to folders that a guest has written to: no symlink is followed, no FIFO is waited for.

A guest can leave anything in its /shared: symlinks to files of the host, FIFOs that block their reader,
devices, trees deeper than any path, names with escape sequences. The host reads and writes there only
through this module.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.text import clean_line

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

# O_NONBLOCK: opening a FIFO does not block. O_NOCTTY: a terminal does not become our controlling terminal.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# Seconds for rm(1) to remove a tree that is too deep for paths.
_REMOVING_LIMIT = 600.0

# Path components that are followed for one symlink. No honest link has more, and each costs a system call.
_MAX_PARTS = 100

# Changes that are described; further ones are only counted.
_MAX_DESCRIBED = 1000


def open_folder(path: StrOrBytesPath, *, at: int | None = None) -> int:
    """Open a folder. at: descriptor that `path` is relative to. OSError if it is not a folder."""
    return os.open(path, _FOLDER, dir_fd=at)


def open_regular(path: StrOrBytesPath, *, at: int | None = None) -> BinaryIO:
    """Open a regular file for reading; OSError if it is anything else, a symlink included."""
    handle = os.open(path, _READ, dir_fd=at)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fsdecode(path))
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
    """Create a file and open it for writing; FileExistsError if the name exists, even as a symlink."""
    return os.open(path, _CREATE, mode, dir_fd=at)


def make_folder(name: bytes, *, at: int) -> int:
    """Open a folder; create it if it is missing. OSError if the name is not a folder."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=at)
    return open_folder(name, at=at)


def replace_by_symlink(target: bytes, name: bytes, *, at: int) -> None:
    """Create a symlink; it replaces a file or symlink of that name. OSError if the name is a folder."""
    made = f".{os.urandom(8).hex()}".encode()
    os.symlink(target, made, dir_fd=at)
    try:
        os.rename(made, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(made, dir_fd=at)
        raise


def move_in(made: Path, folder: Path) -> Path:
    """Move one of our files into a folder that no guest writes to any more; return the new path.

    The file keeps its name, or becomes `NAME-1` and so on if the guest left something of that name. Both
    folders are on the same file system.
    """
    number = 0
    while True:
        target = folder / (f"{made.name}-{number}" if number else made.name)
        # Not Path.exists, which follows symlinks: rename(2) would replace a dangling one that the guest left.
        if not os.path.lexists(target):
            made.rename(target)
            return target
        number += 1


async def remove(path: Path) -> list[str]:
    """Remove a file, or a folder with all its content, if there is one; return error messages.

    Uses rm(1), which does not build paths, so any depth works, and which follows no symlink.
    """
    if not os.path.lexists(path):
        return []
    try:
        done = await process.run(["rm", "-rf", "--", str(path)])
    except QuizmatrixError as error:
        return [str(error)]
    return [f"{path} could not be removed: {clean_line(done.last_words)}"] if done.status else []


def remove_tree(folder: Path) -> None:
    """Remove a folder, also where its owner may not enter or change what is in it; OSError if that fails."""
    make_safe(folder)
    done = process.run_blocking(["rm", "-rf", "--", str(folder)], limit=_REMOVING_LIMIT)
    if done.status != 0:
        raise OSError(errno.ENOTEMPTY, clean_line(done.last_words), str(folder))


def files_below(folder: Path, end: str) -> Iterator[Path]:
    """The regular files below a folder whose names end with `end`; what cannot be searched is left out."""
    folders = [str(folder)]
    while folders:
        with contextlib.suppress(OSError):
            for entry in _entries(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.endswith(end) and entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def has_more_than(folder: Path, files: int) -> bool:
    """Whether a folder has more than `files` files and folders; also True if a part cannot be read."""
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
    """Make the files that a guest left in `folder` harmless; return the changes, a line each.

    A symlink to the host's files, which a reader on the host would follow, becomes a text file that names
    its target. Devices, FIFOs and sockets are removed. Set-user-ID bits are cleared. Folders that could not
    be read or removed get permissions for their owner. Symlinks that stay inside are kept. The guest must
    have ended.
    """
    changed: list[str] = []
    folder.chmod(0o755)
    if _for_each_entry(str(folder), _make_file_safe, changed):
        # Only after the first pass: before it, some folders cannot be read, so their symlinks are unknown.
        _for_each_entry(str(folder), _make_link_safe, changed)
    return changed


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder, one at a time: a guest decides how many there are."""
    with os.scandir(folder) as entries:
        yield from entries


_Handler = Callable[[str, os.DirEntry[str], int, list[str]], None]


def _for_each_entry(root: str, handle: _Handler, changed: list[str]) -> bool:
    """Call `handle` with every entry below `root` and its mode; return whether there are symlinks.

    An entry for which `handle` fails is removed.
    """
    has_links = False
    folders = [root]
    # Not os.walk, which recurses and lists whole folders: the guest decides how deep and how large they are.
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
            continue  # it was removed together with its parent
        except OSError as error:
            # A folder whose entries are too deep for any path is removed as a whole.
            is_deep = error.errno == errno.ENAMETOOLONG
            why = "was too deep" if is_deep else f"could not be searched ({error.strerror})"
            _remove(root, here, why, changed)
    return has_links


def _remove(root: str, path: str, why: str, changed: list[str]) -> None:
    # rm(1) does not build paths, so any depth works.
    process.run_blocking(["rm", "-rf", "--", path], limit=_REMOVING_LIMIT)
    _note(changed, root, path, f"{why}; removed")


def _note(changed: list[str], root: str, path: str, what: str) -> None:
    # There may be a million changes: the number is kept, but only the first ones are described.
    words = f"{clean_line(os.path.relpath(path, root))} {clean_line(what)}"
    changed.append(words if len(changed) < _MAX_DESCRIBED else "")


def _make_file_safe(root: str, entry: os.DirEntry[str], mode: int, changed: list[str]) -> None:
    if stat.S_ISDIR(mode):
        if mode & stat.S_IRWXU != stat.S_IRWXU or mode & (stat.S_ISUID | stat.S_ISGID):
            Path(entry.path).chmod(stat.S_IMODE(mode) & 0o777 | stat.S_IRWXU)
    elif not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        Path(entry.path).unlink()
        _note(changed, root, entry.path, "was not a regular file; removed")
    elif stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        Path(entry.path).chmod(stat.S_IMODE(mode) & 0o777)
        _note(changed, root, entry.path, "was set-user-ID")


def _make_link_safe(root: str, entry: os.DirEntry[str], mode: int, changed: list[str]) -> None:
    if stat.S_ISLNK(mode):
        target = Path(entry.path).readlink()
        if make_link_safe(root, Path(entry.path)):
            _note(changed, root, entry.path, f"was a symbolic link to {target}")


def make_link_safe(root: str, link: Path) -> bool:
    """Replace a symlink below `root` by a text file if it leads out of `root`; return whether it did."""
    if not leads_out(root, link):
        return False
    target = link.readlink()
    link.unlink()
    # If the disk is full, the symlink is only removed.
    with contextlib.suppress(OSError), os.fdopen(create(link, mode=0o644), "wb") as file:
        file.write(b"symbolic link to %s\n" % os.fsencode(target))
    return True


def leads_out(root: str, link: Path) -> bool:
    """Whether following a symlink could leave `root`, also through other symlinks; a loop counts as leaving.

    Nothing outside `root` is read. A path component that does not exist counts as a folder.
    """
    place = list(link.parent.relative_to(root).parts)
    ahead = [link.name]
    for _ in range(_MAX_PARTS):
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
                place.append(part)  # not a symlink, or it does not exist
            else:
                if target.startswith("/"):
                    return True
                ahead += reversed(target.split("/"))
    return True
