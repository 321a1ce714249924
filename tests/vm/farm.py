"""Hosts of a test: a dask scheduler and workers, each a process with its own cache, home and certificates."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from quizmatrix.hosts.blobs import FOLDER
from quizmatrix.hosts.security import AUTHORITY, CERTIFICATE, KEY

# Seconds for a process to be ready, and to end.
_LIMIT = 60.0
_PAUSE = 0.1


class Host:
    """One worker. It can be killed, stopped and started again."""

    def __init__(self, farm: Farm, name: str, *, cpus: int) -> None:
        self._farm = farm
        self.folder = farm.folder / name
        self.cache = (farm.folder if farm.one_cache else self.folder) / "cache"
        self.log = self.folder / "log"
        self._cpus = cpus
        self.folder.mkdir()
        self.start()

    def start(self) -> None:
        """Start it, and wait until the scheduler knows it."""
        own = self._farm.environment | {
            "HOME": str(self.folder),
            "QUIZMATRIX_CACHE_DIR": str(self.cache),
            "QUIZMATRIX_STATE_DIR": str(self.folder / "state"),
        }
        argv = [sys.executable, *self._farm.worker, "worker", self._farm.address, "--cpus", str(self._cpus)]
        argv += ["--certificates", str(self._farm.certificates)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                argv, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        wait_for(lambda: "lent to" in self.log.read_text(), self.process, self.log)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, without a chance to tidy up."""
        self.signal(signal.SIGKILL)
        self.process.wait(_LIMIT)

    @property
    def folders(self) -> list[Path]:
        """The folders of its workers: one, unless another was killed."""
        return list((self.cache / FOLDER).glob(".worker.*"))

    @property
    def guests(self) -> int:
        """How many QEMU processes run from its cache."""
        return len(qemus_with(str(self.cache)))


class Farm:
    """A scheduler, and its workers."""

    def __init__(
        self,
        folder: Path,
        *,
        cpus: tuple[int, ...] = (1, 1),
        worker: Path | None = None,
        one_cache: bool = False,
    ) -> None:
        """cpus: of each worker. worker: its program, in place of quizmatrix. one_cache: all share one."""
        self.folder = folder
        self.worker = [str(worker)] if worker else ["-m", "quizmatrix"]
        self.one_cache = one_cache
        self.environment = {name: value for name, value in os.environ.items() if name != "PWD"}
        self.certificates = folder / "certificates"
        argv = [sys.executable, "-m", "quizmatrix", "worker", "--make-certificates"]
        subprocess.run([*argv, "--certificates", str(self.certificates)], check=True, capture_output=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tls://127.0.0.1:{port}"
        self.scheduler = self._start_scheduler(port)
        self.hosts = [Host(self, f"host{number}", cpus=one) for number, one in enumerate(cpus)]

    def _start_scheduler(self, port: int) -> subprocess.Popen[bytes]:
        log = self.folder / "scheduler"
        argv = [str(Path(sys.executable).with_name("dask")), "scheduler", "--host", "127.0.0.1"]
        argv += ["--protocol", "tls", "--port", str(port), "--no-dashboard", "--dashboard-address", ":0"]
        for option, name in (("ca-file", AUTHORITY), ("cert", CERTIFICATE), ("key", KEY)):
            argv += [f"--tls-{option}", str(self.certificates / name)]
        with log.open("w") as file:
            started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        wait_for(lambda: "Scheduler at" in log.read_text(), started, log)
        return started

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `quizmatrix run` for this farm."""
        return "--on", self.address, "--certificates", str(self.certificates)

    def stop(self) -> None:
        """End all of it. No guest may be left."""
        for process in (*(host.process for host in self.hosts), self.scheduler):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(_LIMIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(_LIMIT)
        left = qemus_with(str(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left


def wait_for(
    is_so: Callable[[], object], process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Wait until a function says so; AssertionError where it never does, or the process ends first."""
    ends = time.monotonic() + _LIMIT
    while not is_so():
        has_ended = process is not None and process.poll() is not None
        if has_ended or time.monotonic() > ends:
            if process is not None:
                process.kill()
                process.wait()
            raise AssertionError(log.read_text() if log is not None else "it did not come to that")
        time.sleep(_PAUSE)


def qemus_with(text: str) -> list[int]:
    """The processes of QEMU with this text in their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if line.partition(b"\0")[0].rpartition(b"/")[2].startswith(b"qemu-system") and text.encode() in line:
            found.append(int(place.name))
    return found
