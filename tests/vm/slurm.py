"""A Slurm of one node, for tests: munged, slurmctld and slurmd, as Debian packages them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.vm.processes import wait_for

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")


def why_not() -> str:
    """Why it cannot run here; empty where it can."""
    if os.geteuid() != 0:
        return "slurmd needs root"
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    return f"{', '.join(missing)} is not installed" if missing else ""


def _configuration(folder: Path) -> str:
    name = socket.gethostname().partition(".")[0]
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    return f"""\
ClusterName=test
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MailProg=/bin/true
NodeName={name} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def running_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Slurm, until the block ends. Yields the environment of its users."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(configuration), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    munge = [f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket", "--force", "--foreground"]
    munge += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge", f"--seed-file={folder}/seed"]
    with ExitStack() as stack:
        for name, words in (
            ("munged", munge),
            ("slurmctld", ["-D", "-f", str(configuration)]),
            ("slurmd", ["-D", "-f", str(configuration)]),
        ):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            started = subprocess.Popen(
                [name, *words], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            stack.callback(_end, started)
            if name == "munged":
                wait_for((folder / "munge.socket").exists, started, folder / "munged.log")
        wait_for(lambda: _is_idle(environment), started, folder / "slurmd.log")
        yield environment


def _is_idle(environment: dict[str, str]) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%t"], env=environment, capture_output=True, check=False
    )
    return done.stdout.strip() == b"idle"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
