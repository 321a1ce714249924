"""Where blobs come from: the submitter, another worker, or a store that all hosts reach. Real servers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from quizmatrix.core import uses
from quizmatrix.core.errors import NotFetchedError, UsageError
from quizmatrix.hosts import blobs, fetching, incoming, outgoing, security, serving
from quizmatrix.hosts.fetching import HomeClient, HomeClients
from quizmatrix.hosts.security import LOOPBACK, Certificates
from quizmatrix.hosts.serving import BlobServer, Uploads
from quizmatrix.hosts.sharedstore import SharedStore, absolute

LARGE = 3 << 20


class Hosts:
    """A submitter with one large blob, and its workers; each has a cache of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._certificates = Certificates(folder=folder / "certificates")
        security.make_certificates(self._certificates.folder)
        self.servers: list[BlobServer] = []
        self.be("submitter")
        with blobs.unfinished() as made:
            made.write_bytes(os.urandom(LARGE))
            self.digest = blobs.keep(made)
        self.blob = blobs.BLOBS.path(self.digest)
        self.home = self._start(BlobServer(Uploads(folder / "incoming", 1)))

    def be(self, name: str) -> None:
        """From now on, the cache is this host's."""
        self._monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(self._folder / name))
        blobs.prepare()

    def _start(self, server: BlobServer) -> str:
        self.servers.append(server)
        return server.start(LOOPBACK, self._certificates.context(server=True))

    def worker(self, name: str) -> tuple[HomeClient, Path]:
        """A new worker, and where the blob goes there."""
        self.be(name)
        own = self._start(BlobServer())
        return HomeClient(self.home, self._certificates.context(), own), blobs.BLOBS.path(self.digest)

    async def stop(self) -> None:
        for server in self.servers:
            await server.stop()


Play = Callable[[Callable[[Hosts], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs a function with hosts."""

    @asynccontextmanager
    async def hosts() -> AsyncIterator[Hosts]:
        made = Hosts(tmp_path, monkeypatch)
        try:
            yield made
        finally:
            await made.stop()

    def run(scene: Callable[[Hosts], Awaitable[None]]) -> None:
        async def main() -> None:
            async with hosts() as made:
                await scene(made)

        anyio.run(main)

    monkeypatch.setattr(fetching, "_TRIES", 1)
    return run


def test_a_blob_comes_from_another_worker(play: Play) -> None:
    async def scene(hosts: Hosts) -> None:
        content = hosts.blob.read_bytes()
        first, there = hosts.worker("first")
        await first.fetch(hosts.digest, there)
        assert there.read_bytes() == content
        await first.tell_has(hosts.digest)
        # The submitter could not send it any more.
        hosts.blob.unlink()
        second, place = hosts.worker("second")
        # The connection broke: what is there is its beginning.
        place.write_bytes(content[:1000])
        await second.fetch(hosts.digest, place)
        assert place.read_bytes() == content
        await second.tell_has(hosts.digest)
        with pytest.raises(NotFetchedError, match="404"):
            await first.fetch_directly(hosts.digest, there.with_name("again"))
        for one in (first, second):
            await one.close()

    play(scene)


def test_a_worker_that_has_dropped_it_or_gone(play: Play) -> None:
    async def scene(hosts: Hosts) -> None:
        content = hosts.blob.read_bytes()
        first, there = hosts.worker("first")
        await first.fetch(hosts.digest, there)
        await first.tell_has(hosts.digest)
        there.unlink()
        second, place = hosts.worker("second")
        await second.fetch(hosts.digest, place)
        assert place.read_bytes() == content
        await hosts.servers[1].stop()
        third, place = hosts.worker("third")
        await third.fetch(hosts.digest, place)
        assert place.read_bytes() == content
        for one in (first, second, third):
            await one.close()

    play(scene)


def test_many_that_ask_at_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: Counter[str] = Counter()
    get = serving._Blob.get

    async def counted(handler: Any, path: str, include_body: bool = True) -> None:
        sent[Path(handler.root).parts[-3]] += 1
        await get(handler, path, include_body)

    monkeypatch.setattr(serving._Blob, "get", counted)

    async def scene(hosts: Hosts) -> None:
        content = hosts.blob.read_bytes()
        workers = [hosts.worker(f"host{number}") for number in range(6)]

        async def fetch(client: HomeClient, place: Path) -> None:
            await client.fetch(hosts.digest, place)
            await client.tell_has(hosts.digest)

        async with anyio.create_task_group() as group:
            for client, place in workers:
                group.start_soon(fetch, client, place)
        assert all(place.read_bytes() == content for _, place in workers)
        # The submitter has not sent it to all.
        assert sum(sent.values()) == 6
        assert 1 <= sent["submitter"] < 6
        for client, _ in workers:
            await client.close()

    play(scene)


def test_what_another_worker_has_damaged_comes_from_the_submitter(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(hosts: Hosts) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source/a").write_bytes(os.urandom(LARGE))
        hosts.be("submitter")
        digest = outgoing.offer(tmp_path / "source")
        clients = []
        for name in ("liar", "victim"):
            client, _ = hosts.worker(name)
            clients.append(client)
            sources = incoming.Sources([client.fetch, client.fetch_directly], client.tell_has)
            made = await incoming.folder_of(digest, sources, uses.Uses())
            assert (made / "a").read_bytes() == (tmp_path / "source/a").read_bytes()
            assert client._unreachable == ""
            for blob in blobs.BLOBS.root.glob("*"):
                blob.write_bytes(blob.read_bytes()[:-1] + b"x")
        for client in clients:
            await client.close()

    play(scene)


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_shared_store(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "submitter"))
        blobs.prepare()
        content = os.urandom(LARGE)
        digest = blobs.keep_bytes(content)
        store = SharedStore(f"{scheme}{tmp_path}/store")
        with pytest.raises(NotFetchedError, match="could not be fetched from"):
            await store.fetch(digest, tmp_path / "x")
        await store.put([digest])
        await store.put([digest])
        (tmp_path / "got").write_bytes(content[:1000])
        await store.fetch(digest, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == content
        if scheme != "memory://":
            assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == [digest]

    anyio.run(main)


def test_stores_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    blobs.prepare()
    (tmp_path / "file").write_text("")
    for url, said in (
        ("nonsense://x", "Protocol not known"),
        ("s3://bucket", "s3fs"),
        ("simplecache::http://x", "it goes through another URL"),
    ):
        with pytest.raises(UsageError, match=said):
            SharedStore(url)
    with pytest.raises(NotFetchedError, match="cannot be written"):
        anyio.run(SharedStore(str(tmp_path / "file")).put, [blobs.keep_bytes(b"x")])
    assert absolute("s3://x/y") == "s3://x/y"
    assert absolute("rel") == str(Path("rel").absolute())


def test_one_client_serves_many_orders() -> None:
    async def main() -> None:
        clients = HomeClients(None)
        first = clients.enter("http://first/")
        assert clients.enter("http://first/") is first
        await clients.leave("http://first/")
        await clients.leave("http://first/")
        assert clients.enter("http://first/") is first
        for number in range(4):
            clients.enter(f"http://{number}/")
            await clients.leave(f"http://{number}/")
        # It is in use, the last ones may be used again, and the others are closed.
        assert sorted(clients._clients) == ["http://2/", "http://3/", "http://first/"]

    anyio.run(main)
