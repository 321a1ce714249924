"""What the hosts of a run get from its submitter: blobs of all that a job is run from, made once in a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import NotFetchedError
from quizmatrix.core.once import OncePerKey
from quizmatrix.core.process import Tell
from quizmatrix.core.store import path_of
from quizmatrix.hosts import blobs, outgoing, worktree
from quizmatrix.hosts.messages import SentDisk
from quizmatrix.hosts.sharedstore import SharedStore
from quizmatrix.hosts.trees import Left, Listing
from quizmatrix.model.job import CellJob
from quizmatrix.model.spec import Disk


class Supply:
    """The blobs of one run. Each folder is read once: it goes as it was then."""

    def __init__(
        self, home: str, tell: Tell, store: SharedStore | None = None, *, sends_whole_tree: bool = False
    ) -> None:
        """home: the URL of our server. tell: is called with what a user should know. store: also has them.

        sends_whole_tree: of the current folder, what git ignores travels, too.
        """
        self.home = home
        self._tell = tell
        self._store = store
        self._sends_whole_tree = sends_whole_tree
        self._offers = OncePerKey()

    @property
    def store(self) -> str:
        """The URL of the store that all hosts reach; empty if there is none."""
        return self._store.url if self._store is not None else ""

    async def of_job(self, job: CellJob, tell: Tell) -> dict[str, str]:
        """The listings of all that a job is run from, by its name or path. tell: as above."""
        tree = job.files.work_tree
        offered = {}
        for source in job.sources:
            is_work_tree = tree is not None and source == tree.host_path
            make = partial(self._offer, source, tell, is_work_tree=is_work_tree)
            offered[source] = await self._offers.get(source, make)
        return offered

    async def of_disks(self, disks: Sequence[Disk]) -> list[SentDisk]:
        """What is told of the disks of an attempt, which cells hand on."""
        found = []
        for disk in disks:
            content = ""
            if disk.origin is not None:
                content = await self._offers.get(disk.origin, partial(self._offer_disk, disk.origin))
            found.append(SentDisk(serial=disk.serial, size=Path(disk.path).stat().st_size, content=content))
        return found

    async def _offer(self, source: str, tell: Tell, *, is_work_tree: bool) -> str:
        left = Left()
        if is_work_tree and not self._sends_whole_tree and (stays := await worktree.left_out(Path(source))):
            tell(worktree.sentence(stays))
            left.wanted = stays.__contains__
        offered = await in_thread(partial(outgoing.offer, path_of(source), left))
        if left.unreadable:
            tell(worktree.unreadable_sentence(left.unreadable))
        return await self._stored(offered)

    async def _offer_disk(self, origin: str) -> str:
        # Not into the store, where it would stay.
        return await in_thread(partial(outgoing.offer_once, Path(origin)))

    async def _stored(self, listing: str) -> str:
        """The listing, after it and its packs were put into the shared store."""
        if self._store is not None:
            packs = Listing.decode(blobs.BLOBS.path(listing).read_bytes()).packs
            try:
                await self._store.put([listing, *packs])
            except NotFetchedError as error:
                # The hosts fetch it from here.
                self._store = None
                self._tell(str(error))
        return listing
