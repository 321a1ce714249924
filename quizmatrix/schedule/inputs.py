"""Hashes all that a cell is run from. Different outcomes with the same hash mean that the cell is flaky."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import checksum
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import HostError
from quizmatrix.core.json import encode_exactly
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import OWN_STDIN, CellSpec, GuestNetwork

# Files of a folder that are looked at: about half a second. Of a larger one nothing is said.
MOST_FILES = 50_000

# Layers whose paths name their content.
_NAMED_BY_CONTENT = frozenset({"kernel", "joined"})


class Inputs:
    """Names what the cells of one run are run from. Each folder is looked at once, when first needed."""

    def __init__(self, run: Path) -> None:
        """run: the run's directory, which differs from run to run and is no input."""
        self._run = run
        self._states: dict[str, str] = {}
        self._locks: dict[str, anyio.Lock] = {}

    async def look(self, folders: list[str]) -> None:
        """Take the state of these folders as it is now, unless it was taken before."""
        for folder in folders:
            async with self._locks.setdefault(folder, anyio.Lock()):
                if folder not in self._states:
                    try:
                        # In a thread: guests that boot meanwhile do not wait for it.
                        self._states[folder] = await in_thread(partial(_state_of, folder))
                    except (OSError, HostError):
                        # Nothing is said of it then; that is no verdict on any cell.
                        self._states[folder] = ""

    async def key(self, spec: CellSpec, before: Sequence[CellResult] = ()) -> str:
        """The word for what `spec` is run from: all in it, and the files of the folders that its guest sees.

        before: the results of what it waited for. Empty where they are not known: a folder that is too
        large, a disk that keeps what guests wrote.
        """
        if not all(result.inputs for result in before):
            return ""
        folders = folders_of(spec)
        await self.look(folders)
        states = [self._states[folder] for folder in folders]
        kept = [
            disk
            for disk in spec.files.disks
            if disk.writable and not Path(disk.path).is_relative_to(self._run)
        ]
        if kept or not all(states):
            return ""
        facts = encode_exactly(_alike(spec)).replace(encode_exactly(str(self._run)).strip(b'"'), b"")
        written = [result.inputs for result in before]
        return hashlib.sha256(b"\n".join([facts, *map(str.encode, [*states, *written])])).hexdigest()[:24]


def _alike(spec: CellSpec) -> CellSpec:
    """`spec` without what differs between runs that are alike.

    Our own stdin is left out: where a command has read some of it, nobody asks for this word. So are ports of
    the host that lead to the guest: each run may find others free.
    """
    replace = msgspec.structs.replace
    network = GuestNetwork() if spec.machine.network else None
    stdin = spec.command.stdin if spec.command.stdin != OWN_STDIN else None
    return CellSpec(
        labels=replace(spec.labels, again=None),
        machine=replace(spec.machine, network=network),
        files=replace(spec.files, folder=""),
        command=replace(spec.command, session=None, stdin=stdin),
        limits=spec.limits,
    )


def folders_of(spec: CellSpec) -> list[str]:
    """The host folders, and single files, that a guest sees and that others may change."""
    layers = [layer.path for layer in spec.files.layers if layer.tag not in _NAMED_BY_CONTENT]
    work_tree = [spec.files.work_tree.path] if spec.files.work_tree else []
    files = [profile.files for profile in spec.command.profiles if profile.files]
    given = [spec.command.stdin] if spec.command.stdin not in (None, OWN_STDIN) else []
    return [*layers, *work_tree, *(bind.path for bind in spec.files.binds), *files, *given]


def _state_of(folder: str) -> str:
    if Path(folder).is_file():
        now = Path(folder).stat()
        return f"{now.st_size} {now.st_mtime_ns}"
    return checksum.state_of(Path(folder), at_most=MOST_FILES)
