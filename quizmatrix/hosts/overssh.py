"""Hosts for one run, over ssh(1): a scheduler of the run's own, and a worker on each host.

Scheduler, workers and the submitter's HTTP server listen on the loopback alone, and ssh carries their
connections. They are encrypted all the same, with certificates that are made for the run: other users of this
host and of those could connect, too. A worker ends when its connection does.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from quizmatrix.core import json, paths, process
from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.text import clean_line
from quizmatrix.hosts.security import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    LOOPBACK,
    Certificates,
    make_certificates,
)

# Seconds for a host to be reached and its worker to join.
_JOIN_LIMIT = 60.0

# Password prompts would wait for ever. A connection that says nothing for 15 seconds is given up.
_OPTIONS = {
    "BatchMode": "yes",
    "ExitOnForwardFailure": "yes",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}


class SshFarm:
    """The hosts. address: of the scheduler."""

    def __init__(
        self, hosts: tuple[str, ...], address: str, certificates: Certificates, folder: Path
    ) -> None:
        """hosts: as ssh takes them. folder: for what the workers print."""
        self.address = address
        self.certificates = certificates
        self.is_patient = False
        self._hosts = hosts
        self._folder = folder
        self._processes: dict[str, Process] = {}
        self._stack = ExitStack()

    async def lend(self, client: Any, home: int) -> list[str]:
        """Start the workers, and wait until they have joined; returns a sentence for each host that has not.

        client: of dask. home: the port of the submitter's HTTP server. Raises UnpreparedError where no host
        joins.
        """
        for host in self._hosts:
            self._processes[host] = await self._start(host, home)
        with anyio.move_on_after(_JOIN_LIMIT):
            while not await self._have_joined(client):
                pass
        joined = await self._joined(client)
        failed = [f"{host}: {self._words(host)}" for host in self._hosts if host not in joined]
        if not joined:
            raise UnpreparedError(
                "no host could be had",
                cause="; ".join(failed),
                next_step="`ssh HOST quizmatrix worker --help` has to work without a password.",
            )
        return failed

    async def _start(self, host: str, home: int) -> Process:
        scheduler = int(self.address.rpartition(":")[2])
        own = _free_port()
        words = [
            "quizmatrix",
            "worker",
            self.address,
            "--certificates",
            "-",
            "--port",
            str(own),
            "--name",
            host,
        ]
        # What a login shell adds to PATH, and where pip and pipx put it, which root's profile does not add.
        script = f'PATH="$HOME/.local/bin:$PATH"; exec {shlex.join(words)}'
        remote = f"exec sh -lc {shlex.quote(script)}"
        argv = ["ssh", "-T", *(f"-o{name}={value}" for name, value in _OPTIONS.items())]
        for port in (scheduler, home):
            argv += ["-R", f"{LOOPBACK}:{port}:{LOOPBACK}:{port}"]
        argv += ["-L", f"{LOOPBACK}:{own}:{LOOPBACK}:{own}", "--", host, remote]
        output = self._stack.enter_context((self._folder / host).open("wb"))
        reading, writing = os.pipe()
        # As long as it is open, the worker goes on.
        self._stack.callback(os.close, writing)
        try:
            started = await process.start(argv, output=output, stdin=reading)
        finally:
            os.close(reading)
        os.write(writing, self._certificate_line())
        return started

    def _certificate_line(self) -> bytes:
        names = (AUTHORITY, CERTIFICATE, KEY)
        texts = {name: (self.certificates.folder / name).read_text() for name in names}
        return json.encode(texts) + b"\n"

    async def _have_joined(self, client: Any) -> bool:
        """Wait until something changes. Whether every host has joined, or its ssh has ended."""
        left = set(self._hosts) - await self._joined(client)
        running = [host for host in left if self._processes[host].returncode is None]
        if not running:
            return True
        there = len(self._hosts) - len(left)
        async with task_group() as group:

            async def until(awaited: Any) -> None:
                await awaited
                group.cancel_scope.cancel()

            group.start_soon(until, client.wait_for_workers(there + 1))
            for host in running:
                group.start_soon(until, self._processes[host].wait())
        return False

    async def _joined(self, client: Any) -> set[str]:
        known = await client.scheduler.identity(n_workers=-1)
        return {str(worker["name"]) for worker in known["workers"].values()} & set(self._hosts)

    def _words(self, host: str) -> str:
        """Why a host has not joined."""
        with suppress(OSError):
            said = (self._folder / host).read_text(errors="replace").strip()
            if said:
                return clean_line(said.rpartition("\n")[2])
        return "it has not joined in time" if self._processes[host].returncode is None else "ssh has ended"

    async def stop(self) -> None:
        """End all connections, and with them the workers."""
        self._stack.close()
        for one in self._processes.values():
            with anyio.move_on_after(5):
                await one.wait()
            await process.kill(one)


@asynccontextmanager
async def ssh_farm(hosts: tuple[str, ...], folder: Path) -> AsyncIterator[SshFarm]:
    """A scheduler for the run, and its hosts, which `lend` starts. folder: for files meanwhile."""
    from distributed import Scheduler

    process.require_program("ssh", "openssh-client")
    with paths.scratch(folder, "ssh") as name:
        certificates = Certificates(folder=Path(name) / "certificates")
        make_certificates(certificates.folder)
        make: Any = Scheduler  # dask's has no types
        async with make(
            host=LOOPBACK,
            port=0,
            protocol="tls",
            security=certificates.security(),
            dashboard=False,
            dashboard_address=f"{LOOPBACK}:0",
        ) as scheduler:
            farm = SshFarm(hosts, scheduler.address, certificates, Path(name))
            try:
                yield farm
            finally:
                with anyio.CancelScope(shield=True):
                    await farm.stop()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port: int = free.getsockname()[1]
        return port
