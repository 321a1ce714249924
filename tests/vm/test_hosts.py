"""Cells on other hosts: real workers, each with its own cache, over TLS."""

import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quizmatrix.hosts.blobs import FOLDER
from tests.vm.conftest import Quizmatrix
from tests.vm.farm import Farm
from tests.vm.namespaces import why_not
from tests.vm.processes import wait_for
from tests.vm.test_handoff import READ, WRITE, Handed, matrix

CELL = "6.1-x86_64"
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    made = Farm(tmp_path_factory.mktemp("farm"))
    yield made
    made.stop()


def results_of(folder: Path) -> dict[str, Any]:
    """By cell, its result."""
    read = json.loads((folder / "results.json").read_bytes())
    return {cell["cell"]: cell for cell in read["cells"]}


def test_a_cell_runs_there_as_it_runs_here(farm: Farm, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    here, layer = tmp_path / "here", tmp_path / "layer"
    # A profile of the user's own, and a folder of a suite, which a profile runs.
    own = tmp_path / "config/profiles/mine"
    (own / "files/opt").mkdir(parents=True)
    (own / "profile.toml").write_text('summary = "mine"\n')
    (own / "files/opt/y").write_text("of the profile\n")
    (here / "with space").mkdir()
    (here / "with space/tool.sh").write_text('#!/bin/sh\necho "tool: $1"\n')
    (here / "with space/tool.sh").chmod(0o755)
    (here / "link").symlink_to("with space")
    (layer / "opt").mkdir(parents=True)
    (layer / "opt/x").write_text("of the layer\n")
    (here / "input").write_text("input\n")
    script = (
        'pwd; link/tool.sh "a  b"; cat /opt/x /opt/y; cat; echo "$TOKEN"; uname -r; echo kept >/shared/kept;'
        " echo err >&2; printf 'no newline'; exit 3"
    )
    options = (
        "--layer",
        str(layer),
        "-p",
        "mine",
        "--env",
        "TOKEN",
        "--stdin",
        "input",
        "--offline",
        "--output",
    )
    environment = {**os.environ, "TOKEN": "secret", "QUIZMATRIX_CONFIG_DIR": str(tmp_path / "config")}
    seen = []
    for name, on in (("local", ()), ("remote", farm.options)):
        argv = ["run", "--only", CELL, *on, *options, str(tmp_path / name), "--", script]
        done = quizmatrix(*argv, env=environment)
        seen.append((done.returncode, done.stdout, done.stderr))
        folder = tmp_path / name / CELL
        assert (folder / "artifacts/kept").read_text() == "kept\n"
        assert (folder / "stdout").read_bytes() == done.stdout
        # Only the output has what was passed on.
        having = {
            path.name for path in folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()
        }
        assert having == {"stdout"}
    assert seen[0] == seen[1]
    assert seen[0][0] == 3
    local, remote = (results_of(tmp_path / name)[CELL] for name in ("local", "remote"))
    for folder in (tmp_path / name / CELL for name in ("local", "remote")):
        assert f"--only {CELL}" in (folder / "reproduce.sh").read_text()
    assert str(farm.folder) not in (tmp_path / "remote" / CELL / "reproduce.sh").read_text()
    # Both ran from the same: a later run may take either for it.
    assert local["inputs"] == remote["inputs"]
    assert local["host"] is None
    assert remote["host"]["name"] in (host.name for host in farm.hosts if farm.network) or not farm.network
    for key in ("release", "outcome", "exit_code", "accelerator"):
        assert remote[key] == local[key]


def test_a_second_run_sends_only_what_has_changed(farm: Farm, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    work = tmp_path / "here/data"
    work.write_bytes(os.urandom(3 << 20))
    argv = [
        "run",
        "-k",
        "6.1",
        "-a",
        "x86_64",
        *farm.options,
        "--offline",
        "--",
        "cksum data file | cut -c1-20",
    ]
    # Each host has got it once.
    for _ in farm.hosts:
        (tmp_path / "here/file").write_bytes(os.urandom(1000))
        assert quizmatrix(*argv).returncode == 0
    before = arrived(farm)
    (tmp_path / "here/file").write_bytes(os.urandom(1000))
    done = quizmatrix(*argv)
    assert done.returncode == 0
    assert arrived(farm) - before < 100_000


def arrived(farm: Farm) -> int:
    """The bytes of all that has come to the hosts."""
    blobs = (host.cache / FOLDER / "blobs" for host in farm.hosts)
    return sum(path.stat().st_size for folder in blobs for path in folder.glob("*"))


def test_a_sweep_over_two_hosts(farm: Farm, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    argv = ["run", "-k", "6.1", "-a", "x86_64,s390x", *farm.options, "--offline", "--output", "run", "--"]
    done = quizmatrix(*argv, "uname -m; [ $(uname -m) = s390x ]")
    assert done.returncode == 1
    found = results_of(tmp_path / "here/run")
    assert {name: (one["outcome"], one["exit_code"]) for name, one in found.items()} == {
        "6.1-x86_64": ("failed", 1),
        "6.1-s390x": ("passed", 0),
    }
    for arch in ("x86_64", "s390x"):
        assert (tmp_path / f"here/run/6.1-{arch}/stdout").read_text() == f"{arch}\n"


def test_disks_go_from_host_to_host(farm: Farm, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    keys = {"write": WRITE, "read": READ, "back": True}
    argv = [str(matrix(tmp_path, **keys)), *farm.options, "--offline", "--output", str(tmp_path / "run")]
    done = Handed(quizmatrix("run", *argv), tmp_path / "run")
    x86, s390x = "6.1-x86_64", "6.1-s390x"
    written = {x86: "passed", s390x: "passed"}
    own = {f"{cell}..{cell}": "passed" for cell in written}
    home = {f"{cell}..{cell}..{cell}": "passed" for cell in written}
    crossed = {f"{x86}..{s390x}": "failed", f"{s390x}..{x86}": "failed"}
    not_home = {f"{x86}..{s390x}..{x86}": "skipped", f"{s390x}..{x86}..{s390x}": "skipped"}
    assert done.outcomes == written | own | home | crossed | not_home, done.said
    assert done.stdout(f"{s390x}..{s390x}..{s390x}") == "back /dev/quizh0 /dev/quizh1: 0102\n"
    # What was written on a host came home, and is kept where a reader failed.
    assert done.disks == [f"{s390x}/disks", f"{x86}/disks"]
    assert (done.folder / f"{s390x}/disks/quizh0").read_bytes()[:2] == b"\1\2"


class Running:
    """A run that waits in its guest until it is told to go on."""

    def __init__(self, farm: Farm, tmp_path: Path, environment: dict[str, str]) -> None:
        self._farm = farm
        self.folder = tmp_path / "run"
        argv = [sys.executable, "-m", "quizmatrix", "run", "--only", CELL, *farm.options, "--offline"]
        argv += ["--output", str(self.folder), "--", "echo begun; sleep 15; echo over"]
        (tmp_path / "work").mkdir()
        self.process = subprocess.Popen(
            argv,
            env=environment,
            cwd=tmp_path / "work",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"begun\n"

    @property
    def host(self) -> int:
        """The number of the host that runs the guest."""
        (found,) = (number for number, host in enumerate(self._farm.hosts) if host.guests)
        return found

    def ended(self) -> tuple[int, bytes]:
        """Exit status and the rest of stdout, once it ends."""
        rest, _ = self.process.communicate(timeout=120)
        return self.process.returncode, rest


@pytest.fixture
def running(farm: Farm, tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[], Running]]:
    made: list[Running] = []

    def run() -> Running:
        made.append(Running(farm, tmp_path, environment))
        return made[-1]

    yield run
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_a_worker_that_is_killed(farm: Farm, running: Callable[[], Running]) -> None:
    run = running()
    victim = farm.hosts[run.host]
    victim.kill()
    (left,) = victim.folders
    # The other host begins anew; the command's output so far cannot be taken back.
    status, rest = run.ended()
    assert (status, rest) == (0, b"begun\nover\n")
    (result,) = results_of(run.folder).values()
    assert result["outcome"] == "passed"
    assert (run.folder / CELL / "stdout").read_bytes() == b"begun\nover\n"
    victim.start()
    # What it could not remove when it was killed.
    assert left not in victim.folders


def test_a_worker_that_says_nothing(farm: Farm, running: Callable[[], Running]) -> None:
    run = running()
    victim = farm.hosts[run.host]
    victim.signal(signal.SIGSTOP)
    try:
        status, rest = run.ended()
    finally:
        victim.signal(signal.SIGCONT)
    assert (status, rest) == (0, b"begun\nover\n")
    # Its late result is dropped, and it does not come back by itself.
    victim.wait()
    (result,) = results_of(run.folder).values()
    assert result["outcome"] == "passed"
    victim.start()


def test_a_worker_that_is_cut_from_the_network(farm: Farm, running: Callable[[], Running]) -> None:
    if farm.network is None:
        pytest.skip(why_not())
    run = running()
    victim = farm.hosts[run.host]
    farm.network.cut(victim.name)
    try:
        status, rest = run.ended()
    finally:
        farm.network.mend(victim.name)
    assert (status, rest) == (0, b"begun\nover\n")
    assert (run.folder / CELL / "stdout").read_bytes() == b"begun\nover\n"
    (result,) = results_of(run.folder).values()
    assert result["outcome"] == "passed"
    assert result["host"]["name"] != victim.name
    victim.stop()
    victim.start()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_submitter_that_ends(how: signal.Signals, farm: Farm, running: Callable[[], Running]) -> None:
    run = running()
    host = farm.hosts[run.host]
    run.process.send_signal(how)
    started = time.monotonic()
    wait_for(lambda: not host.guests)
    assert time.monotonic() - started < 10
    status, _ = run.ended()
    assert status == (130 if how is signal.SIGINT else -how)
    wait_for(lambda: not [path for folder in host.folders for path in folder.glob(".run.*")])


def test_a_host_of_another_authority_is_not_let_in(
    farm: Farm, tmp_path: Path, quizmatrix: Quizmatrix
) -> None:
    others = str(tmp_path / "others")
    assert quizmatrix("worker", "--make-certificates", "--certificates", others).returncode == 0
    done = quizmatrix("run", "--only", CELL, "--on", farm.address, "--certificates", others, "--", "true")
    assert done.returncode == 125
    assert f"the scheduler {farm.address} cannot be reached" in done.stderr.decode()
    done = quizmatrix("run", "--only", CELL, "--on", farm.address.replace("tls", "tcp"), "--", "true")
    assert done.returncode == 125


def test_a_scheduler_that_is_killed_ends_the_run_in_words(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, environment: dict[str, str]
) -> None:
    farm = Farm(tmp_path_factory.mktemp("doomed"), cpus=(1,))
    try:
        run = Running(farm, tmp_path, environment)
        farm.scheduler.kill()
        wait_for(lambda: not farm.hosts[0].guests)
        with run.process:
            _, said = run.process.communicate(timeout=120)
        assert run.process.returncode == 125
        assert b"unprepared: the scheduler is gone" in said
        assert b"Traceback" not in said
        # `run --resume` has it to do again.
        (result,) = results_of(run.folder).values()
        assert result["outcome"] == "unprepared"
    finally:
        farm.stop()


def test_a_host_with_a_full_disk(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, quizmatrix: Quizmatrix
) -> None:
    farm = Farm(tmp_path_factory.mktemp("full"), sizes=("20M", ""))
    try:
        if farm.network is None:
            pytest.skip(why_not())
        argv = ["run", "--only", CELL, "--shard", "3", "--cpus", "1", *farm.options, "--offline"]
        done = quizmatrix(*argv, "--output", str(tmp_path / "run"), "--", "true")
        assert done.returncode == 0, done.stderr
        assert b"host0: cannot store what comes from another host: No space left on device" in done.stderr
        ran = [result["host"]["name"] for result in results_of(tmp_path / "run").values()]
        assert ran == ["host1"] * 3
    finally:
        farm.stop()


def test_without_certificates_nothing_listens_but_on_the_loopback(tmp_path: Path) -> None:
    log = tmp_path / "scheduler"
    dask = str(Path(sys.executable).with_name("dask"))
    argv = [
        dask,
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--dashboard-address",
        ":0",
    ]
    with log.open("w") as file:
        scheduler = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    started = [scheduler]
    try:
        wait_for(lambda: "Scheduler at" in log.read_text(), scheduler, log)
        (address,) = re.findall(r"Scheduler at: +(tcp://\S+)", log.read_text())
        said = tmp_path / "worker"
        own = os.environ | {"QUIZMATRIX_CACHE_DIR": str(tmp_path / "cache")}
        argv = [sys.executable, "-m", "quizmatrix", "worker", address]
        with said.open("w") as file:
            worker = subprocess.Popen(argv, env=own, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        started.insert(0, worker)
        wait_for(lambda: "lent to" in said.read_text(), worker, said)
        listening = listeners(worker.pid)
        assert listening
        assert {ipaddress.ip_address(one).is_loopback for one in listening} == {True}
    finally:
        for one in started:
            one.terminate()
            one.wait(30)


def listeners(pid: int) -> set[str]:
    """The addresses at which a process listens for connections, as ss(8) has them."""
    done = subprocess.run(["ss", "-Hltnp"], capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines() if f"pid={pid}," in line]
    return {words[3].rpartition(":")[0].strip("[]").replace("*", "::") for words in lines}
