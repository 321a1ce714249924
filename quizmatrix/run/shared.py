"""A guest's /shared on the host: its size is watched during the run, and its files are made safe after it."""

from __future__ import annotations

import contextlib
import stat
import time
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.core import process, untrusted
from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import QuizmatrixError, host_error
from quizmatrix.model.spec import CellSpec
from quizmatrix.run import mapped
from quizmatrix.run.cellfolder import artifacts_of
from quizmatrix.run.hostdisk import FreeDisk, disk_of

# Up to this many files are made safe without a new process.
_FEW_FILES = 500

# The largest number of changes that are listed.
_NOTES_SHOWN = 5

# Seconds between two checks of the disk's free space; a check is one system call.
_LOOK_PAUSE = 0.25
# Seconds after which /shared is measured even if the free space has not changed: some file systems report it
# late.
_LONGEST_UNMEASURED = 5.0
# Measuring many files takes seconds. The pause after it is this many times as long,
_PAUSE_SHARE = 10.0
# but at most this many seconds while the free space suggests that /shared exceeds its limit.
_LONGEST_PAUSE = 2.0
# Seconds for one measurement; a million files on a busy host take less.
_MEASURING_LIMIT = 300.0

# The largest number of files in /shared: they take inodes, and time to be made safe afterwards.
_MAX_FILES = 1_000_000
# The files are counted only once the file system has this many more than at the start.
_FILES_TRUSTED = 100_000


def make_files_safe(folder: str, shown: int) -> tuple[list[str], int]:
    """Make the files of a guest's /shared safe; return the first `shown` changes and their total number.

    Raises OSError if the folder cannot be read.
    """
    changed = mapped.unmap(Path(folder)) + untrusted.make_safe(Path(folder))
    return changed[:shown], len(changed)


class Shared:
    """The /shared of one guest.

    is_finished: whether its files are safe.
    excess: a sentence if it exceeded its limit. shortage: a sentence if it filled this host's disk.
    """

    def __init__(self, spec: CellSpec, *, max_files: int = _MAX_FILES, trusted: int = _FILES_TRUSTED) -> None:
        """The files are in the cell's folder.

        max_files: limit on files in /shared. trusted: new files on the disk before they are counted.
        """
        self._max_files, self._trusted = max_files, trusted
        self.excess = ""
        self.shortage = ""
        self.is_finished = False
        self._spec = spec
        self._limit = spec.files.shared_limit << 20
        self._folder = Path(spec.files.folder)
        self._artifacts = artifacts_of(self._folder)

    async def wait_for_excess(self, machine: int | None = None) -> None:
        """Return when the guest must be ended because of what it wrote; `excess` or `shortage` says why.

        machine: the pid of its QEMU, if it runs. No event reports what QEMU writes, so the disk is polled.
        """
        first = disk = disk_of(self._artifacts)
        used, when, pause = 0, time.monotonic(), 0.0
        while True:
            await anyio.sleep(_LOOK_PAUSE)
            now, past = disk_of(self._artifacts), time.monotonic() - when
            may_be = used + max(0, disk.free - now.free)
            has_many = now.files - first.files > self._trusted
            # Many files take long to measure, and the guest must not write much meanwhile.
            is_pressing = may_be > self._limit or now.is_short
            is_due = is_pressing or has_many or past > _LONGEST_UNMEASURED
            if not is_due or past < (min(pause, _LONGEST_PAUSE) if is_pressing else pause):
                continue
            before, started = used, time.monotonic()
            used, disk = await self._measure("-B1") + self._hidden(machine), now
            self._check_limits(used, before, now)
            if has_many and (count := await self._measure("--inodes")) > self._max_files:
                self.excess = f"/shared had {count} files; its limit is {self._max_files}"
            if self.excess or self.shortage:
                return
            when = time.monotonic()
            pause = (when - started) * _PAUSE_SHARE

    def _check_limits(self, used: int, before: int, disk: FreeDisk) -> None:
        if used > self._limit:
            self.excess = (
                f"/shared grew to {used >> 20} MiB; its limit is {self._spec.files.shared_limit} MiB"
            )
        # Only a guest that fills the disk. On a full disk no /shared grows, so growth is then not required.
        elif disk.is_short and used > disk.reserve and (used > before or disk.free < disk.reserve // 8):
            left = f"this host had {disk.free >> 20} MiB of disk left"
            self.shortage = f"{left}, and /shared held {used >> 20} MiB"

    def _hidden(self, machine: int | None) -> int:
        """Bytes of files that the guest has unlinked but still has open: du(1) does not find them."""
        if machine is None:
            return 0
        total = 0
        with contextlib.suppress(OSError):
            disk = self._artifacts.stat().st_dev
            for handle in Path(f"/proc/{machine}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    facts = handle.stat()
                    is_file = stat.S_ISREG(facts.st_mode) and facts.st_dev == disk
                    total += facts.st_blocks * 512 if is_file and not facts.st_nlink else 0
        return total

    async def _measure(self, what: str) -> int:
        """Bytes or files in /shared, by du(1): it works at any depth and follows no symlink (fts(3))."""
        argv = ["du", "-s", "-x", "-P", what, "--", str(self._artifacts)]
        try:
            # Files that the guest removes meanwhile are errors for du, but it still prints the total.
            return int((await process.run(argv, limit=_MEASURING_LIMIT)).output.split(maxsplit=1)[0])
        except process.NotEndedError as error:
            self.excess = f"/shared could not be measured: {error}"
        except QuizmatrixError as error:  # the host's fault, so not a verdict on the guest
            self.shortage = f"/shared could not be measured: {error}"
        except (ValueError, IndexError):  # removed meanwhile; the cell ends for that anyway
            pass
        return 0

    async def finish(self) -> list[str]:
        """Make artifacts/ safe and complete; return notes for the user. The guest must have ended."""
        if not self._folder.is_dir():
            return []
        return await self._unpack_shared() + await self._free_disk() + await self._make_safe()

    def mark_unsafe_unless_finished(self) -> list[str]:
        """If `finish` did not finish, rename artifacts/ so that nobody trusts its files; return a note."""
        if self.is_finished:
            return []
        unchecked = self._artifacts.with_name(f"{self._artifacts.name}.unchecked")
        try:
            self._artifacts.rename(unchecked)
        except OSError as error:
            return [str(host_error("rename its /shared", error))]
        return [f"/shared was not checked: symlinks in {unchecked.name}/ may lead anywhere"]

    async def _unpack_shared(self) -> list[str]:
        if self._spec.machine.kernel.has_9p:
            return []
        async with task_group() as group:

            async def watch() -> None:
                await self.wait_for_excess()
                group.cancel_scope.cancel()

            # A small archive may contain a huge number of empty files.
            group.start_soon(watch)
            notes = await self._unpack()
            group.cancel_scope.cancel()
        return notes

    async def _unpack(self) -> list[str]:
        from quizmatrix.run import layerdisks

        try:
            failure = await layerdisks.take_shared(self._folder, self._limit)
        except layerdisks.TooLargeError as error:
            self.excess, failure = str(error), None
        except (OSError, QuizmatrixError) as error:
            failure = f"/shared could not be unpacked: {error}"
        return [failure] if failure else []

    async def _free_disk(self) -> list[str]:
        """If the disk is full, remove the files of /shared so that other guests can finish; return notes."""
        if not self.shortage or not disk_of(self._artifacts).is_short:
            return []
        failures = await untrusted.remove(self._artifacts)
        try:
            self._artifacts.mkdir(exist_ok=True)
        except OSError as error:
            return [*failures, str(host_error("make /shared anew", error))]
        return failures or ["the content of /shared was removed, to give the other cells room"]

    async def _make_safe(self) -> list[str]:
        notes: list[str] = []
        try:
            changed, count = await self._look_through()
            self.is_finished = True
        except OSError as error:
            changed, count = [str(host_error("check the files in its /shared", error))], 1
        notes += changed
        if count > _NOTES_SHOWN:
            notes.append(f"and {count - _NOTES_SHOWN} more in /shared")
        return notes

    async def _look_through(self) -> tuple[list[str], int]:
        """Call `make_files_safe` without blocking the event loop: the guest decides how much work that is."""
        given = (str(self._artifacts), _NOTES_SHOWN)
        if await in_thread(partial(untrusted.has_more_than, self._artifacts, _FEW_FILES)):
            from quizmatrix.core import offload

            return await offload.call(make_files_safe, *given, returns=tuple[list[str], int])
        return await in_thread(partial(make_files_safe, *given))
