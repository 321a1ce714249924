"""The worker's side of the submitter's HTTP server: fetches blobs, and sends the folders of cells."""

from __future__ import annotations

import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import anyio
import httpx

from quizmatrix.core.errors import NotFetchedError
from quizmatrix.hosts.serving import DIRECT, OWN_SERVER

# Seconds without a byte after which a connection is given up; how often it is tried again, and the pause.
_SILENCE = 30.0
_CONNECT_LIMIT = 5.0
_TRIES = 5
_PAUSE = 2.0
_CHUNK = 1 << 20
# How many clients stay that nobody uses.
_KEPT = 2

_PARTIAL = 206
_NOT_SATISFIABLE = 416
_NO_STORAGE = 507


class HomeClient:
    """Talks to one submitter."""

    def __init__(self, url: str, context: ssl.SSLContext | None, own_server: str = "") -> None:
        """url: see serving.BlobServer. context: for TLS. own_server: of this worker; empty if it has none."""
        self._url = url
        self._own_server = {OWN_SERVER: own_server} if own_server else {}
        self._unreachable = ""
        timeout = httpx.Timeout(_SILENCE, connect=_CONNECT_LIMIT)
        self._client = httpx.AsyncClient(
            verify=context or True, timeout=timeout, trust_env=False, headers=self._own_server
        )

    async def fetch(self, digest: str, target: Path) -> None:
        """Fetch a blob to a path; what is there already is its beginning. NotFetchedError if that fails.

        It comes from the submitter, or from another worker that has it.
        """
        await self._try(digest, target, self._fetch)

    async def fetch_directly(self, digest: str, target: Path) -> None:
        """Like `fetch`, from the submitter alone."""
        await self._try(digest, target, self._fetch_directly)

    @staticmethod
    async def _try(digest: str, target: Path, fetch: Callable[[str, Path], Awaitable[None]]) -> None:
        for attempt in range(_TRIES):
            try:
                await fetch(digest, target)
                break
            except httpx.HTTPError as error:
                if attempt == _TRIES - 1:
                    raise NotFetchedError(
                        f"{digest[:12]} could not be fetched from the submitter", cause=_words(error)
                    ) from error
            await anyio.sleep(_PAUSE)

    async def tell_has(self, digest: str) -> None:
        """Tell the submitter that this worker has a blob: others may fetch it here."""
        if self._own_server:
            with suppress(httpx.HTTPError):
                await self._client.put(f"{self._url}/has/{digest}")

    async def _fetch(self, digest: str, target: Path) -> None:
        if self._unreachable:
            await self._fetch_directly(digest, target)
        elif other := await self._receive(f"{self._url}/blobs/{digest}", target):
            try:
                if await self._receive(other, target):
                    raise httpx.RemoteProtocolError("another host does not send what it has")
            except httpx.HTTPError:
                # That host has gone, has dropped it, or no way leads there. Nor to others, perhaps.
                self._unreachable = other.rpartition("/blobs/")[0]
                await self._fetch_directly(digest, target)

    async def _fetch_directly(self, digest: str, target: Path) -> None:
        query = urlencode({DIRECT: self._unreachable or "yes"})
        await self._receive(f"{self._url}/blobs/{digest}?{query}", target)

    async def _receive(self, url: str, target: Path) -> str:
        """Receive a blob, behind what is there of it; or return the URL of another host that has it."""
        there = target.stat().st_size if target.exists() else 0
        headers = {"Range": f"bytes={there}-"} if there else {}
        async with self._client.stream("GET", url, headers=headers) as answer:
            if answer.has_redirect_location:
                return answer.headers["Location"]
            if there and answer.status_code == _NOT_SATISFIABLE:
                return ""  # all of it is there
            answer.raise_for_status()
            with target.open("ab" if answer.status_code == _PARTIAL else "wb") as file:
                async for chunk in answer.aiter_bytes(_CHUNK):
                    file.write(chunk)
        return ""

    async def send(self, path: Path, order: str) -> str:
        """Send a file as an order's result; returns the upload's name. NotFetchedError if that fails."""
        upload = secrets.token_hex(8)
        for attempt in range(_TRIES):
            try:
                answer = await self._client.put(
                    f"{self._url}/results/{order}/{upload}",
                    content=_content_of(path),
                    headers={"Content-Length": str(path.stat().st_size)},
                )
                if answer.status_code == _NO_STORAGE:
                    raise NotFetchedError("the submitter could not store the results", cause=answer.text)
                answer.raise_for_status()
                return upload
            except httpx.HTTPError as error:
                if attempt == _TRIES - 1:
                    raise NotFetchedError(
                        "the results could not be sent to the submitter", cause=_words(error)
                    ) from error
            await anyio.sleep(_PAUSE)
        return upload

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class HomeClients:
    """The clients of a worker: one for each submitter, whose connections serve one order after the other."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        """context: see HomeClient, and for `own_server`, which may be set later."""
        self.own_server = ""
        self._context = context
        self._clients: dict[str, HomeClient] = {}
        self._users: Counter[str] = Counter()

    def enter(self, url: str) -> HomeClient:
        """The client for a submitter, until `leave`."""
        client = self._clients.pop(url, None) or HomeClient(url, self._context, self.own_server)
        # The one that was used last stands last.
        self._clients[url] = client
        self._users[url] += 1
        return client

    async def leave(self, url: str) -> None:
        """A use has ended. Clients that nobody uses are closed, but for the last few."""
        self._users[url] -= 1
        unused = [one for one in self._clients if not self._users[one]]
        for one in unused[:-_KEPT]:
            del self._users[one]
            await self._clients.pop(one).close()


async def _content_of(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _words(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
