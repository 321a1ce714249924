"""Hashes all that a cell is run from. Different outcomes with the same hash mean that the cell is flaky."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import checksum
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import HostError
from quizmatrix.core.json import encode_exactly
from quizmatrix.core.once import OncePerKey
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import OWN_STDIN, CellSpec, GuestNetwork

# The largest number of files of a folder that are examined, which takes about half a second.
MOST_FILES = 50_000

# Tags of layers whose paths name their content, so that they need not be examined.
_NAMED_BY_CONTENT = frozenset({"kernel", "joined"})


class Inputs:
    """Makes the input keys of the cells of one run. Each folder is examined once, when it is first needed."""

    def __init__(self, run: Path) -> None:
        """run: the run directory, whose path differs from run to run and is not an input."""
        self._run = run
        self._states = OncePerKey()

    async def look(self, folders: list[str]) -> None:
        """Record the current state of these folders, unless that was done before."""
        for folder in folders:
            await self._state(folder)

    async def _state(self, folder: str) -> str:
        async def examine() -> str:
            try:
                # In a thread, so that guests that boot meanwhile do not wait.
                return await in_thread(partial(_state_of, folder))
            except (OSError, HostError):
                # Without a state, its cells get no key; that does not change their outcome.
                return ""

        return await self._states.get(folder, examine)

    async def key(self, spec: CellSpec, before: Sequence[CellResult] = ()) -> str:
        """The input key of a cell: a hash of its specification and of all files that its guest sees.

        before: the results of the tasks that it waited for. Empty where inputs are unknown: a folder is too
        large, or a disk keeps what guests wrote.
        """
        if not all(result.inputs for result in before):
            return ""
        folders = folders_of(spec)
        states = [await self._state(folder) for folder in folders]
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
    """`spec` without the parts that differ between equal runs.

    Quizmatrix's own stdin is left out: after a command has read from it, no key is made. Ports of the host
    are left out, since each run may find others free; and how the guest starts, which decides nothing.
    """
    replace = msgspec.structs.replace
    network = GuestNetwork() if spec.machine.network else None
    stdin = spec.command.stdin if spec.command.stdin != OWN_STDIN else None
    return CellSpec(
        labels=replace(spec.labels, again=None),
        machine=replace(spec.machine, network=network, start=None),
        files=replace(spec.files, folder=""),
        command=replace(spec.command, session=None, stdin=stdin),
        limits=spec.limits,
    )


def folders_of(spec: CellSpec) -> list[str]:
    """The folders and single files of the host that a guest sees and that may change between runs."""
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
