"""HTTP servers for blobs: the submitter's, which also takes the folders of cells that have ended, and a
worker's, from which other workers fetch what it has.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from tornado import httpserver, netutil, web

from quizmatrix.hosts import blobs
from quizmatrix.hosts.packing import BESIDE_SHARED

# The header in which a worker names its own server; and the query that asks for the blob itself, which may
# name a server that was asked in vain.
OWN_SERVER = "X-Quizmatrix-Server"
DIRECT = "direct"

# To how many hosts the submitter sends one blob at a time, as long as no other host has it; and how many
# seconds the next ones wait until one has.
_AT_ONCE = 2
_PATIENCE = 20.0
# Seconds that a host has to check what it got.
_CHECKING = 5.0

# HTTP's "insufficient storage", and "look there, by the same method".
_NO_STORAGE = 507
_LOOK_THERE = 307


class _Blob(web.StaticFileHandler):
    """A blob; tornado knows ranges."""

    def compute_etag(self) -> str:
        # Tornado would read the whole file to hash it; its name is its hash.
        return f'"{Path(self.absolute_path or "").name}"'

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/octet-stream")


class Spread:
    """Who has which blob: those that want it, too, are sent there."""

    def __init__(self) -> None:
        self._holders: dict[str, list[str]] = {}
        # To whom a blob is sent now, or was, and who has not said yet that it has it.
        self._getting: dict[str, set[str]] = {}
        self._news: dict[str, anyio.Event] = {}

    async def holder_for(self, digest: str, asking: str) -> str:
        """The server of another host that has a blob; empty if the submitter has to send it.

        asking: the server of the host that wants it.
        """
        with anyio.move_on_after(_PATIENCE):
            while not self._holders.get(digest) and len(self._getting.get(digest, ())) >= _AT_ONCE:
                await self._news.setdefault(digest, anyio.Event()).wait()
        holders = self._holders.get(digest, [])
        found = next((one for one in holders if one != asking), "")
        if found:
            # The next one asks another.
            holders.remove(found)
            holders.append(found)
        return found

    @contextmanager
    def sending(self, digest: str, to: str) -> Iterator[None]:
        """Note that the submitter sends a blob until the block ends."""
        self._getting.setdefault(digest, set()).add(to)
        try:
            yield
        finally:
            # It is checked there, or the connection broke.
            asyncio.get_running_loop().call_later(_CHECKING, self._got, digest, to)

    def note(self, digest: str, holder: str) -> None:
        """Note that a host has a blob now."""
        holders = self._holders.setdefault(digest, [])
        if holder not in holders:
            holders.append(holder)
        self._got(digest, holder)

    def forget(self, digest: str, holder: str) -> None:
        """Note that a host could not be reached, or has dropped a blob."""
        with suppress(ValueError):
            self._holders.get(digest, []).remove(holder)

    def _got(self, digest: str, to: str) -> None:
        self._getting.get(digest, set()).discard(to)
        if (event := self._news.pop(digest, None)) is not None:
            event.set()


class _SpreadBlob(_Blob):
    """A blob of the submitter's."""

    def initialize(self, path: str, spread: Spread) -> None:  # type: ignore[override]
        super().initialize(path)
        self._spread = spread

    async def get(self, path: str, include_body: bool = True) -> None:
        asking = self.request.headers.get(OWN_SERVER, "")
        unreachable = self.get_query_argument(DIRECT, "")
        self._spread.forget(path, unreachable)
        holder = "" if unreachable or not asking else await self._spread.holder_for(path, asking)
        if holder:
            self.redirect(f"{holder}/blobs/{path}", status=_LOOK_THERE)
            return
        with self._spread.sending(path, asking):
            await super().get(path, include_body)


class _Has(web.RequestHandler):
    """A worker says that it has a blob."""

    def initialize(self, spread: Spread) -> None:
        self._spread = spread

    def put(self, digest: str) -> None:
        if holder := self.request.headers.get(OWN_SERVER, ""):
            self._spread.note(digest, holder)
        self.set_status(204)


@web.stream_request_body
class _Result(web.RequestHandler):
    """The folder of a cell, packed, as it comes."""

    def initialize(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def prepare(self) -> None:
        path = self._uploads.path_of(self.path_args[0], self.path_args[1])
        if path is None:
            raise web.HTTPError(404)
        self.request.connection.set_max_body_size(self._uploads.most)  # type: ignore[union-attr]
        self._file = path.open("wb")

        self._error: OSError | None = None

    def data_received(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:  # the rest comes all the same, and is dropped
            self._error = error

    def put(self, *_names: str) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._error = error
        self.set_status(201 if self._error is None else _NO_STORAGE)
        self.finish(self._error.strerror or "" if self._error else "")


class Uploads:
    """Where the folders of cells come in. Hosts that were given up may send an order's once more."""

    def __init__(self, folder: Path, most: int) -> None:
        """folder: for the files. most: bytes of one."""
        self._folder = folder
        self.most = most + BESIDE_SHARED
        self._expected: set[str] = set()

    @contextmanager
    def expected(self, order: str) -> Iterator[None]:
        """Take uploads for an order until the block ends; then all are removed."""
        self._expected.add(order)
        try:
            yield
        finally:
            self._expected.discard(order)
            for path in self._folder.glob(f"{order}.*"):
                path.unlink(missing_ok=True)

    def path_of(self, order: str, upload: str) -> Path | None:
        """The file of an upload; None where nothing like it is expected."""
        is_name = upload.isalnum() and upload.isascii()
        return self._folder / f"{order}.{upload}" if order in self._expected and is_name else None


class BlobServer:
    """A server. url: with its secret; port: its own. Both once it was started."""

    def __init__(self, uploads: Uploads | None = None) -> None:
        """uploads: what the submitter takes; None: it is a worker's."""
        self.url = ""
        self.port = 0
        self._secret = secrets.token_urlsafe(24)
        self._server: httpserver.HTTPServer | None = None
        self._uploads = uploads

    def start(self, address: str, context: ssl.SSLContext | None) -> str:
        """Listen on a free port of this address; returns the URL. Raises OSError."""
        sockets = netutil.bind_sockets(0, address)
        application = web.Application(self._routes(), log_function=lambda _handler: None)
        self._server = httpserver.HTTPServer(application, ssl_options=context, max_buffer_size=1 << 26)
        self._server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        host = f"[{address}]" if ":" in address else address
        self.url = f"http{'s' if context else ''}://{host}:{self.port}/{self._secret}"
        return self.url

    def _routes(self) -> list[Any]:
        name, files = r"([0-9a-f]{64})", {"path": str(blobs.BLOBS.root)}
        if self._uploads is None:
            return [(rf"/{self._secret}/blobs/{name}", _Blob, files)]
        spread = Spread()
        return [
            (rf"/{self._secret}/blobs/{name}", _SpreadBlob, {**files, "spread": spread}),
            (rf"/{self._secret}/has/{name}", _Has, {"spread": spread}),
            (rf"/{self._secret}/results/(\w+)/(\w+)", _Result, {"uploads": self._uploads}),
        ]

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.stop()
            await asyncio.wait_for(self._server.close_all_connections(), 5)
