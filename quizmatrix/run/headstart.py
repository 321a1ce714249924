"""A head start: QEMU starts, and restores the guest, while Python still imports what a run needs.

That is a guess: the command line that QEMU had last time, when the same options were typed in the same
folder, and the layers that its guest joined then. Only guests of templates are started so. They wait until
they are told to start (run/start.py), and by then it is known which QEMU is wanted. If it is another one, the
one of the guess is killed. This module comes before all else, so it imports little: the import of msgspec
alone takes half the time that QEMU needs to start.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from quizmatrix.core import paths, private, spawn
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.run import mappedroot, restoring
from quizmatrix.run.cellfolder import artifacts_of, make_own_files, own_files_of, run_layer_of
from quizmatrix.run.ends import CONTROL, QMP, make_ends

# In the state directory. It has one file for each command line, of which those that were used last are kept.
FOLDER = "guesses"
_MOST = 100
# Beside them: folders of guests that have none of their own yet.
_BEGUN = ".begun-"

# Seconds that a guest waits for the run to be ready for it: it takes memory that nobody has asked for yet,
# and has the time and the folders of its beginning.
_PATIENCE = 30.0
# Seconds after which Python lets another thread run. By default they are so many that the one which restores
# the guest would wait as long for each of QEMU's answers as QEMU itself takes for it: imports never wait.
_SWITCH = 0.0005
# Seconds that the run waits for QEMU to have opened its folders. By then it has.
_OPEN_LIMIT = 1.0


class Guess(NamedTuple):
    """How a QEMU was started that restores a guest. cell: whose.

    argv: its command line, with marks in place of descriptors and of the cell's folder. before: what stands
    before that: these words, and our pid. ports: their names. memory, state: the template's files. folders:
    of the host, which the guest sees, but for those in the cell's folder. joined: the files of the run layer
    that say what a guest joins, texts by name; without any, it waits before that.
    """

    cell: str
    before: list[str]
    argv: list[str]
    ports: list[str]
    memory: str
    state: str
    folders: list[str]
    joined: dict[str, str]


def mark(name: str) -> str:
    """What stands in a guess for the descriptor of this name. No word of a command line has a zero byte."""
    return f"\0{name}\0"


FOLDER_MARK = mark("folder")


class HeadStart:
    """A QEMU that was started on a guess. guess: that. ends: what it is connected to. child: its process."""

    def __init__(self, guess: Guess, folder: Path) -> None:
        """Starts it. folder: a new one for what will be in the cell's.

        Raises OSError, LookupError where the guess lacks a port, RuntimeError where there is no new thread.
        """
        self.guess = guess
        self._folder = folder
        self._given: Path | None = None
        self._error = ""
        self._has_opened, self._is_restored, self._is_over = (threading.Event() for _ in range(3))
        with ExitStack() as undo:
            folder.mkdir(mode=0o700)
            undo.callback(paths.remove_tree, folder)
            _make_folders(folder)
            if guess.joined:
                make_own_files(folder, guess.joined)
                mappedroot.prepare(artifacts_of(folder))
            self._files = _identities(guess)
            self.ends = make_ends(guess.ports)
            undo.callback(self._close_ends)
            self._monitor, self._control = (self.ends.ports[name][0] for name in (QMP, CONTROL))
            self.child = self._spawn()
            self.ends = self.ends.given()
            undo.callback(self._kill)
            self._attendant = threading.Thread(target=self._attend, daemon=True)
            self._attendant.start()
            self._undo = undo.pop_all()

    def _spawn(self) -> spawn.Spawned:
        passed = self.ends.passed
        # QEMU's options have commas doubled.
        marks = {FOLDER_MARK: str(self._folder).replace(",", ",,")}
        marks |= {mark(name): str(descriptor) for name, descriptor in passed.items()}
        argv = [*self.guess.before, str(os.getpid())]
        argv += [_filled(word, marks) for word in self.guess.argv]
        return spawn.spawn(argv, pass_fds=list(passed.values()), output=self.ends.log[1])

    def _close_ends(self) -> None:
        self.ends.close()

    def _kill(self) -> None:
        self._is_over.set()
        self.child.kill()

    def _attend(self) -> None:
        """In a thread, as QEMU has to be waited for: restore the guest, and let it wait."""
        state = Path(self.guess.state)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        self._error = restoring.restore(
            self._monitor, self._control, state, self._has_opened.set, joins=bool(self.guess.joined)
        )
        sys.setswitchinterval(usual)
        self._has_opened.set()
        self._is_restored.set()
        if not self._is_over.wait(_PATIENCE):
            self.child.kill()

    def is_for(self, cell: str) -> bool:
        """Whether it is for a cell of this name."""
        return self.guess.cell == cell

    def give_folders(self, folder: Path) -> bool:
        """Move the folders that QEMU has open to the cell's folder; False if that cannot be."""
        if not self._has_opened.wait(_OPEN_LIMIT):
            return False
        with suppress(OSError):  # it is on another disk
            for of in _FOLDERS:
                of(self._folder).rename(of(folder))
            self._given = folder
        return self._given == folder

    def take(self, argv: Sequence[str], memory: str, folder: Path) -> bool:
        """Whether it is the QEMU of this command line, with marks; else it is killed.

        memory: the template's file. folder: the cell's. The ends and the child are then the caller's.
        """
        self._is_over.set()
        self.child.look()
        is_it = (
            list(argv) == self.guess.argv
            and memory == self.guess.memory
            and self._given == folder
            and self._sees_the_same()
            and self.child.returncode is None
            and not self._error
        )
        if not is_it:
            self.drop()
            return False
        self._undo.pop_all()
        paths.remove_tree(self._folder)
        return True

    def _sees_the_same(self) -> bool:
        with suppress(OSError):
            return _identities(self.guess) == self._files
        return False

    @property
    def is_restoring(self) -> bool:
        """Whether `wait` would wait."""
        return not self._is_restored.is_set()

    def wait(self) -> str:
        """Wait until the guest is restored; why it is not, or an empty text."""
        self._is_restored.wait()
        return self._error

    def drop(self) -> None:
        """Kill it."""
        self._undo.close()


# The folders of a cell that QEMU opens.
_FOLDERS = (run_layer_of, artifacts_of)


def _make_folders(folder: Path) -> None:
    for of in _FOLDERS:
        of(folder).mkdir(exist_ok=True)


def _filled(word: str, marks: Mapping[str, str]) -> str:
    for what, text in marks.items():
        word = word.replace(what, text)
    return word


def _identities(guess: Guess) -> list[tuple[int, ...]]:
    """What changes when the guess means other files: a template that is made anew has the same names.

    Raises OSError.
    """
    memory = Path(guess.memory).stat()
    found = [path.stat() for path in map(Path, guess.folders)]
    return [(memory.st_dev, memory.st_ino, memory.st_mtime_ns), *((one.st_dev, one.st_ino) for one in found)]


# Where the guess for the command line of this process is, and what was started on it.
_place: Path | None = None
_begun: HeadStart | None = None


def begin(argv: Sequence[str]) -> None:
    """Start what the last run of this command line started. argv: that of quizmatrix.

    Nothing that goes wrong is an error here: the run itself will find it.
    """
    global _place, _begun
    with suppress(OSError, ValueError, LookupError, RuntimeError, QuizmatrixError):
        _place = paths.state_dir() / FOLDER / f"{_name_of(argv)}.json"
        if _is_ours(_place.parent) and _is_ours(_place):
            guess = _read(_place.read_bytes())
            _begun = HeadStart(guess, _place.with_name(f"{_BEGUN}{os.getpid()}-{time.time_ns()}"))


def _read(data: bytes) -> Guess:
    """What `keep` has written. Raises ValueError, or RecursionError, for anything else."""
    pattern = Guess(cell="", before=[""], argv=[""], ports=[""], memory="", state="", folders=[""], joined={})
    try:
        guess = Guess(**json.loads(data))
    except TypeError as error:
        raise ValueError("other keys") from error
    for value, like in zip(guess, pattern, strict=True):
        texts = [*value, *value.values()] if isinstance(value, dict) else value
        if type(value) is not type(like) or not all(isinstance(text, str) for text in texts):
            raise ValueError("other types")
    return guess


def _is_ours(path: Path) -> bool:
    """Whether nobody else could have written it: it has programs that are run. Raises OSError."""
    found = path.lstat()
    is_link = stat.S_ISLNK(found.st_mode)
    return not is_link and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def make_folders(cell: str, folder: Path) -> None:
    """Make the run layer and the artifacts of a cell in its folder. Raises OSError."""
    if for_cell(cell) is None:
        _make_folders(folder)
    elif not _begun or not _begun.give_folders(folder):
        drop()
        _make_folders(folder)


def make_own_files_for(cell: str, folder: Path, texts: Mapping[str, str], ahead: Mapping[str, str]) -> None:
    """Make the files of a cell's run layer that say what its guest joins. Raises OSError.

    texts, ahead: of all, and of those by which it may have joined ahead of its run. A guest that was begun,
    and that joins by others, is killed; one that joins by these reads them now, so they are left alone.
    """
    begun = for_cell(cell)
    if begun is not None and begun.guess.joined:
        if begun.guess.joined == ahead:
            return
        drop()
        paths.remove_tree(own_files_of(folder))
    make_own_files(folder, texts)


def for_cell(cell: str) -> HeadStart | None:
    """What was begun for a cell, if anything was."""
    return _begun if _begun is not None and _begun.is_for(cell) else None


def release() -> None:
    """Leave what was begun to the caller, who takes or drops it."""
    global _begun
    _begun = None


def drop() -> None:
    """Kill what was begun and not taken."""
    global _begun
    if _begun is not None:
        _begun.drop()
    _begun = None


def end() -> None:
    """Kill what was begun and not taken, and keep no guess from now on."""
    global _place
    drop()
    _place = None


def keeps_guesses() -> bool:
    """Whether `keep` keeps anything: a run of several cells has no guess."""
    return _place is not None


def keep(guess: Guess | None) -> None:
    """Keep a guess for the next run of this command line. None: the last one was right.

    Not being able to is no error.
    """
    if _place is None:
        return
    with suppress(OSError, ValueError, QuizmatrixError):
        if guess is None:
            os.utime(_place)
        else:
            text = json.dumps(guess._asdict())
            private.write(private.folder(_place.parent) / _place.name, text.encode())
        _tidy(_place.parent)


def _tidy(folder: Path) -> None:
    """Remove the oldest guesses, and what killed processes have left."""
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_MOST]:
        path.unlink(missing_ok=True)
    paths.remove_left_behind(folder.glob(f"{_BEGUN}*"))


def _name_of(argv: Sequence[str]) -> str:
    """The name of a guess: of the folder, the options, and the program that the command runs."""
    end = argv.index("--") + 2 if "--" in argv else len(argv)
    text = "\0".join([str(Path.cwd()), *argv[:end]])
    return f"{zlib.crc32(text.encode(errors='surrogateescape')):08x}"
