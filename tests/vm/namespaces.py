"""A host of a test in namespaces of its own: another network, another list of processes, another home.

Nothing of it is shared with this host but the file system; it has its own cache there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.vm.farm import wait_for

# A network that tests and documents may use: TEST-NET-3 (RFC 5737).
_OURS, _THEIRS = "203.0.113.1", "203.0.113.2"
_NAME = "qmtest"


def why_not() -> str:
    """Why such a host cannot be made here; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        return "ip or sshd is not installed"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return made.stderr.decode() if made.returncode else ""


@contextmanager
def ssh_host(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """A host that ssh(1) reaches by a name. Yields the environment in which it does."""
    network = f"{_NAME}{os.getpid()}"
    try:
        _make_network(network)
        server = _start_sshd(folder, network)
        try:
            yield os.environ | {"PATH": f"{_own_ssh(folder, name)}:{os.environ['PATH']}"}
        finally:
            # unshare(1) ignores SIGTERM; with it, all its processes die.
            server.kill()
            server.wait(10)
    finally:
        subprocess.run(["ip", "netns", "delete", network], check=False)


def _make_network(network: str) -> None:
    # A device's name has at most 15 characters.
    ours, theirs = (f"qm{os.getpid()}{end}"[-15:] for end in "ab")
    for words in (
        f"netns add {network}",
        f"link add {ours} type veth peer name {theirs} netns {network}",
        f"address add {_OURS}/30 dev {ours}",
        f"link set {ours} up",
        f"-n {network} address add {_THEIRS}/30 dev {theirs}",
        f"-n {network} link set {theirs} up",
        f"-n {network} link set lo up",
    ):
        subprocess.run(["ip", *words.split()], check=True)


def _start_sshd(folder: Path, network: str) -> subprocess.Popen[bytes]:
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    programs = folder / "home/.local/bin"
    programs.mkdir(parents=True)
    (programs / "quizmatrix").symlink_to(Path(sys.executable).with_name("quizmatrix"))
    (folder / "config").write_text(
        f"ListenAddress {_THEIRS}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
        f"SetEnv HOME={folder}/home QUIZMATRIX_CACHE_DIR={folder}/cache\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "sshd.log"
    argv = ["ip", "netns", "exec", network, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")]
    with log.open("wb") as file:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    wait_for(lambda: "Server listening" in log.read_text(), server, log)
    return server


def _own_ssh(folder: Path, name: str) -> Path:
    """A folder with an `ssh` that knows the host."""
    known = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"{_THEIRS} {known}")
    (folder / "ssh_config").write_text(
        f"Host {name}\n  HostName {_THEIRS}\n  User root\n  IdentityFile {folder}/user\n"
        f"  UserKnownHostsFile {folder}/known\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    real = shutil.which("ssh")
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {folder}/ssh_config "$@"\n')
    (programs / "ssh").chmod(0o755)
    return programs


def tidy(folder: Path) -> None:
    """Remove what is left of a host's files."""
    with suppress(OSError):
        shutil.rmtree(folder)
