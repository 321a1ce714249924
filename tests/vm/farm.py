"""Hosts of a test: a dask scheduler here, and workers, each in namespaces of its own.

Where this user may not make any, they are processes beside each other, each with its own cache and home.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from quizmatrix.hosts.blobs import FOLDER
from quizmatrix.hosts.security import AUTHORITY, CERTIFICATE, KEY
from tests.vm.namespaces import Network, why_not
from tests.vm.processes import LIMIT, children_of, is_running, program_of, qemus_with, wait_for

# Runs the worker, and stays when that has ended, so that a guest that it left would, too.
_STAY = '"$@" & wait $!; cat >/dev/null'


class Host:
    """One worker. It can be killed, stopped and started again."""

    def __init__(self, farm: Farm, name: str, *, cpus: int, size: str) -> None:
        self.name = name
        self.folder = farm.folder / name
        self.cache = (farm.folder if farm.one_cache else self.folder) / "cache"
        self.log = self.folder / "log"
        self._farm = farm
        self._cpus = cpus
        self._size = size
        shutil.copytree(farm.certificates, self.folder / "certificates")
        self.start()

    def start(self) -> None:
        """Start it, and wait until the scheduler knows it."""
        own = self._farm.environment | {
            "HOME": str(self.folder),
            "QUIZMATRIX_CACHE_DIR": str(self.cache),
            "QUIZMATRIX_STATE_DIR": str(self.folder / "state"),
        }
        worker = [sys.executable, *self._farm.worker, "worker", self._farm.address, "--cpus", str(self._cpus)]
        worker += ["--certificates", str(self.folder / "certificates")]
        network, inside = self._farm.network, []
        if network is not None:
            inside = network.inside(self.name, self.folder, self._farm.hidden, self._size)
        argv = [*inside, "sh", "-c", _STAY, "sh", *worker]
        with self.log.open("w") as log:
            self._shell = subprocess.Popen(
                argv, env=own, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder
            )
        wait_for(lambda: "lent to" in self.log.read_text(), self._shell, self.log)
        self.pid = self._shell.pid
        while program_of(self.pid) != sys.executable:
            (self.pid,) = children_of(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, without a chance to tidy up. No guest of its may be left a moment later."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended, and its guests have."""
        wait_for(lambda: not is_running(self.pid) and not self.guests)
        self._leave()

    def stop(self) -> None:
        """End it, if it has not ended."""
        for number in (signal.SIGCONT, signal.SIGTERM):
            with suppress(ProcessLookupError):
                self.signal(number)
        try:
            self.wait()
        finally:
            self._shell.kill()

    def _leave(self) -> None:
        if self._shell.stdin is not None:
            self._shell.stdin.close()
        self._shell.wait(LIMIT)

    @property
    def folders(self) -> list[Path]:
        """The folders of its workers: one, unless another was killed."""
        return list((self.cache / FOLDER).glob(".worker-*"))

    @property
    def guests(self) -> int:
        """How many QEMU processes run from its cache."""
        return len(qemus_with(str(self.cache)))


class Farm:
    """A scheduler, and its workers.

    network: that of the hosts; None where they are on the loopback. hidden: the folder of which they see only
    their own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cpus: tuple[int, ...] = (1, 1),
        sizes: tuple[str, ...] = (),
        worker: Path | None = None,
        one_cache: bool = False,
    ) -> None:
        """cpus: of each worker. sizes: of the file systems with their caches; none where they are this one's.

        worker: its program, in place of quizmatrix. one_cache: all share one, and this host's network.
        """
        self.folder = folder
        self.hidden = folder.parent
        self.worker = [str(worker)] if worker else ["-m", "quizmatrix"]
        self.one_cache = one_cache
        self.network = Network() if not one_cache and not why_not() else None
        self.environment = {name: value for name, value in os.environ.items() if name != "PWD"}
        self.certificates = folder / "certificates"
        argv = [sys.executable, "-m", "quizmatrix", "worker", "--make-certificates"]
        subprocess.run([*argv, "--certificates", str(self.certificates)], check=True, capture_output=True)
        self.scheduler = self._start_scheduler()
        self.address = self._scheduler_address()
        self.hosts: list[Host] = []
        try:
            for number, one in enumerate(cpus):
                name = f"host{number}"
                if self.network is not None:
                    self.network.add(name)
                self.hosts.append(Host(self, name, cpus=one, size=sizes[number] if sizes else ""))
        except BaseException:
            self.stop()
            raise

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        own = self.network.address if self.network is not None else "127.0.0.1"
        argv = [str(Path(sys.executable).with_name("dask")), "scheduler", "--host", own, "--port", "0"]
        argv += ["--protocol", "tls", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        for option, name in (("ca-file", AUTHORITY), ("cert", CERTIFICATE), ("key", KEY)):
            argv += [f"--tls-{option}", str(self.certificates / name)]
        log = self.folder / "scheduler"
        with log.open("w") as file:
            started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        wait_for(lambda: "Scheduler at" in log.read_text(), started, log)
        return started

    def _scheduler_address(self) -> str:
        for line in (self.folder / "scheduler").read_text().splitlines():
            if "Scheduler at" in line:
                return line.split()[-1]
        raise AssertionError("the scheduler has no address")

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `quizmatrix run` for this farm."""
        return "--on", self.address, "--certificates", str(self.certificates)

    def stop(self) -> None:
        """End all of it. No guest may be left."""
        try:
            for host in self.hosts:
                host.stop()
        finally:
            if self.scheduler.poll() is None:
                self.scheduler.terminate()
                self.scheduler.wait(LIMIT)
            if self.network is not None:
                self.network.close()
        left = qemus_with(str(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left
