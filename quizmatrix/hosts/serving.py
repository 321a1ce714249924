"""The submitter's HTTP server: hands out blobs, and takes the folders of cells that have ended."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado import httpserver, netutil, web

from quizmatrix.hosts import blobs
from quizmatrix.hosts.packing import BESIDE_SHARED

# HTTP's "insufficient storage".
_NO_STORAGE = 507


class _Blob(web.StaticFileHandler):
    """A blob; tornado knows ranges."""

    def compute_etag(self) -> str:
        # Tornado would read the whole file to hash it; its name is its hash.
        return f'"{Path(self.absolute_path or "").name}"'

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/octet-stream")


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


class Home:
    """The server. port: its own, once it was started."""

    def __init__(self, uploads: Uploads) -> None:
        self._secret = secrets.token_urlsafe(24)
        self._server: httpserver.HTTPServer | None = None
        self._uploads = uploads
        self.port = 0

    def start(self, address: str, context: ssl.SSLContext | None) -> str:
        """Listen on a free port of this address; returns the URL. Raises OSError."""
        routes: list[Any] = [
            (rf"/{self._secret}/blobs/([0-9a-f]{{64}})", _Blob, {"path": str(blobs.BLOBS.root)}),
            (rf"/{self._secret}/results/(\w+)/(\w+)", _Result, {"uploads": self._uploads}),
        ]
        sockets = netutil.bind_sockets(0, address)
        application = web.Application(routes, log_function=lambda _handler: None)
        self._server = httpserver.HTTPServer(application, ssl_options=context, max_buffer_size=1 << 26)
        self._server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        host = f"[{address}]" if ":" in address else address
        return f"http{'s' if context else ''}://{host}:{self.port}/{self._secret}"

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.stop()
            await asyncio.wait_for(self._server.close_all_connections(), 5)
