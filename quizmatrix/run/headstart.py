"""A head start: QEMU starts, and restores the guest, while Python still imports what a run needs.

That is a guess: the command line that QEMU had last time, when the same options were typed in the same
folder. Only guests of templates are started so. They wait until they are told to start (run/start.py), and
by then it is known which QEMU is wanted. If it is another one, the one of the guess is killed. This module
comes before all else, so it imports little.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from quizmatrix.core import paths, private, spawn
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.run import restoring
from quizmatrix.run.cellfolder import artifacts_of, run_layer_of
from quizmatrix.run.ends import CONTROL, QMP, make_ends

# In the state directory. It has one file for each command line, of which the latest are kept.
_FOLDER = "guesses"
_MOST = 100
# Beside them: folders of guests that have none of their own yet. Seconds after which one is nobody's.
_BEGUN = ".begun-"
_LEFT_BEHIND = 3600.0

# Seconds for a killed QEMU to die; one that hangs in the kernel does not.
_KILL_LIMIT = 1.0


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """How a QEMU was started that restores a guest. cell: whose.

    argv: its command line, with marks in place of descriptors and of the cell's folder. before: what stands
    before that: these words, and our pid. ports: their names. memory, state: the template's files.
    """

    cell: str
    before: list[str]
    argv: list[str]
    ports: list[str]
    memory: str
    state: str


def mark(name: str) -> str:
    """What stands in a guess for the descriptor of this name. No word of a command line has a zero byte."""
    return f"\0{name}\0"


FOLDER_MARK = mark("folder")


class HeadStart:
    """A QEMU that was started on a guess. ends: what it is connected to. child: its process."""

    def __init__(self, guess: Guess, folder: Path) -> None:
        """Starts it. folder: a new one for what will be in the cell's. Raises OSError."""
        self._guess = guess
        self._folder = folder
        self._error = ""
        with ExitStack() as undo:
            folder.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            for of in (run_layer_of, artifacts_of):
                of(folder).mkdir()
            self._memory = _identity(guess.memory)
            self.ends = make_ends(guess.ports)
            undo.callback(self._close_ends)
            self.child = self._spawn()
            self.ends = self.ends.given()
            self._restoring = threading.Thread(target=self._restore, daemon=True)
            undo.callback(self._kill)
            self._restoring.start()
            self._undo = undo.pop_all()

    def _spawn(self) -> spawn.Spawned:
        passed = self.ends.passed
        # QEMU's options have commas doubled.
        marks = {FOLDER_MARK: str(self._folder).replace(",", ",,")}
        marks |= {mark(name): str(descriptor) for name, descriptor in passed.items()}
        argv = [*self._guess.before, str(os.getpid())]
        argv += [_filled(word, marks) for word in self._guess.argv]
        return spawn.spawn(argv, pass_fds=list(passed.values()), output=self.ends.log[1])

    def _close_ends(self) -> None:
        self.ends.close()

    def _kill(self) -> None:
        self.child.kill()
        if self._restoring.is_alive():
            # It ends when QEMU has.
            self._restoring.join(_KILL_LIMIT)

    def _restore(self) -> None:
        monitor, control = (self.ends.ports[name][0] for name in (QMP, CONTROL))
        self._error = restoring.restore(monitor, control, Path(self._guess.state))

    def is_for(self, cell: str) -> bool:
        """Whether it is for a cell of this name."""
        return self._guess.cell == cell

    def give_folders(self, folder: Path) -> bool:
        """Move the folders that QEMU has open to the cell's folder; False if they cannot be moved."""
        try:
            for of in (run_layer_of, artifacts_of):
                of(self._folder).rename(of(folder))
        except OSError:  # it is on another disk
            return False
        return True

    def take(self, argv: Sequence[str], template: str) -> bool:
        """Whether it has this command line, with marks, and the memory of this template; else it is killed.

        The ends and the child are then the caller's.
        """
        self.child.look()
        if (
            list(argv) != self._guess.argv
            or template != self._guess.memory
            or not self._is_same(template)
            or self.child.returncode is not None
        ):
            self.drop()
            return False
        self._undo.pop_all()
        shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def _is_same(self, template: str) -> bool:
        with suppress(OSError):
            return _identity(template) == self._memory
        return False

    @property
    def is_restoring(self) -> bool:
        """Whether `wait` would wait."""
        return self._restoring.is_alive()

    def wait(self) -> str:
        """Wait until the guest is restored; why it is not, or an empty text."""
        self._restoring.join()
        return self._error

    def drop(self) -> None:
        """Kill it."""
        self._undo.close()


def _filled(word: str, marks: Mapping[str, str]) -> str:
    for what, text in marks.items():
        word = word.replace(what, text)
    return word


# Where the guess for the command line of this process is, and what was started on it.
_place: Path | None = None
_begun: HeadStart | None = None


def begin(argv: Sequence[str]) -> None:
    """Start what the last run of this command line started. argv: that of quizmatrix.

    Nothing that goes wrong is an error here: the run itself will find it.
    """
    global _place, _begun
    # RuntimeError: this host starts no more threads.
    with suppress(OSError, ValueError, RuntimeError, QuizmatrixError):
        _place = paths.state_dir() / _FOLDER / f"{_name_of(argv)}.json"
        guess = msgspec.json.decode(_place.read_bytes(), type=Guess)
        _begun = HeadStart(guess, _place.with_name(f"{_BEGUN}{os.getpid()}-{time.time_ns()}"))


def make_folders(cell: str, folder: Path) -> None:
    """Make the run layer and the artifacts of a cell in its folder. Raises OSError."""
    begun = for_cell(cell)
    if begun is None or not begun.give_folders(folder):
        for of in (run_layer_of, artifacts_of):
            of(folder).mkdir()


def for_cell(cell: str) -> HeadStart | None:
    """What was begun for a cell, if anything was."""
    return _begun if _begun is not None and _begun.is_for(cell) else None


def take() -> None:
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


def keep(guess: Guess) -> None:
    """Keep a guess for the next run of this command line. Not being able to is no error."""
    if _place is None:
        return
    with suppress(OSError, QuizmatrixError):
        private.write(private.folder(_place.parent) / _place.name, msgspec.json.encode(guess))
        _tidy(_place.parent)


def _tidy(folder: Path) -> None:
    """Remove the oldest guesses, and what killed processes have left."""
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_MOST]:
        path.unlink(missing_ok=True)
    for path in folder.glob(f"{_BEGUN}*"):
        if path.stat().st_mtime < time.time() - _LEFT_BEHIND:
            shutil.rmtree(path, ignore_errors=True)


def _name_of(argv: Sequence[str]) -> str:
    """The name of a guess: of the folder, the options, and the program that the command runs."""
    end = argv.index("--") + 2 if "--" in argv else len(argv)
    text = "\0".join([str(Path.cwd()), *argv[:end]])
    return f"{zlib.crc32(text.encode(errors='surrogateescape')):08x}"


def _identity(path: str) -> str:
    """Which file it is: a template that is made anew has others of the same names. Raises OSError."""
    now = Path(path).stat()
    return f"{now.st_dev} {now.st_ino} {now.st_mtime_ns}"
