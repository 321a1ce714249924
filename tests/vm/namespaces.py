"""Hosts of a test in namespaces of their own: another network, another list of processes, other file systems.

A host shares nothing with this one but the programs: what the tests and the user's cache have is hidden from
it.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quizmatrix.core import paths
from tests.vm.processes import wait_for

_NUMBERS = itertools.count(os.getpid())

# As process 1 of the namespaces, in the host's folder, which all others of the tests' folder hide.
_SCRIPT = """\
set -e
own=$1 tests=$2 cache=$3 size=$4; shift 4
hostname "$(basename "$own")"
mount --make-rprivate /
exec 3<"$own"
mount -t tmpfs hidden "$tests"
mkdir -p "$own"
# Not by its path, which is hidden now.
mount --no-canonicalize --bind /proc/self/fd/3 "$own"
exec 3<&-
[ ! -d "$cache" ] || mount -t tmpfs hidden "$cache"
if [ -n "$size" ]; then mkdir -p "$own/cache"; mount -t tmpfs -o "size=$size" small "$own/cache"; fi
cd "$own"
exec "$@"
"""


def why_not() -> str:
    """Why such a host cannot be made here; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip is not installed"
    made = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True, check=False
    )
    return made.stderr.decode() if made.returncode else ""


class Network:
    """A network with this host on it, and others. address: this host's."""

    def __init__(self) -> None:
        number = next(_NUMBERS)
        # A network for benchmarks (RFC 2544), which no other host has.
        self._prefix = f"198.18.{number % 250}"
        self._name = f"qm{number}"
        self._hosts: list[str] = []
        self.address = f"{self._prefix}.1"
        _ip(f"link add {self._name} type bridge")
        _ip(f"address add {self.address}/24 dev {self._name}")
        _ip(f"link set {self._name} up")

    def add(self, host: str) -> str:
        """Add a host; returns its address."""
        self._hosts.append(host)
        space, ours, theirs = self._space(host), self._device(host), f"{self._device(host)}t"
        address = f"{self._prefix}.{len(self._hosts) + 1}"
        _ip(f"netns add {space}")
        _ip(f"link add {ours} type veth peer name {theirs} netns {space}")
        _ip(f"link set {ours} master {self._name} up")
        _ip(f"-n {space} address add {address}/24 dev {theirs}")
        _ip(f"-n {space} link set {theirs} up")
        _ip(f"-n {space} link set lo up")
        return address

    def cut(self, host: str) -> None:
        """Take a host off the network."""
        _ip(f"link set {self._device(host)} down")

    def mend(self, host: str) -> None:
        """Put it back."""
        _ip(f"link set {self._device(host)} up")

    def inside(self, host: str, folder: Path, tests: Path, size: str = "") -> list[str]:
        """The words before a command that runs it on the host.

        folder: the host's own. tests: what is hidden, but for that. size: of the file system with its cache.
        """
        words = ["ip", "netns", "exec", self._space(host), "unshare", "--mount", "--pid", "--uts", "--fork"]
        words += ["--kill-child", "--mount-proc", "sh", "-c", _SCRIPT, "sh"]
        return [*words, str(folder), str(tests), str(paths.cache_dir()), size]

    def close(self) -> None:
        """Remove it."""
        for host in self._hosts:
            subprocess.run(["ip", "netns", "delete", self._space(host)], check=False)
        subprocess.run(["ip", "link", "delete", self._name], check=False)

    def _space(self, host: str) -> str:
        return f"{self._name}{host}"

    def _device(self, host: str) -> str:
        # A device's name has at most 15 characters.
        return f"{self._name}h{self._hosts.index(host)}"


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


@contextmanager
def ssh_host(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """A host that ssh(1) reaches by a name. Yields the environment in which it does."""
    network = Network()
    try:
        address = network.add(name)
        server = _start_sshd(folder, address, network.inside(name, folder, folder.parent))
        try:
            yield os.environ | {"PATH": f"{_own_ssh(folder, name, address)}:{os.environ['PATH']}"}
        finally:
            # unshare(1) ignores SIGTERM; with it, all its processes die.
            server.kill()
            server.wait(10)
    finally:
        network.close()


def _start_sshd(folder: Path, address: str, inside: list[str]) -> subprocess.Popen[bytes]:
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    programs = folder / "home/.local/bin"
    programs.mkdir(parents=True)
    (programs / "quizmatrix").symlink_to(Path(sys.executable).with_name("quizmatrix"))
    (folder / "config").write_text(
        f"ListenAddress {address}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n"
        f"SetEnv HOME={folder}/home QUIZMATRIX_CACHE_DIR={folder}/cache\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "sshd.log"
    argv = [*inside, "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")]
    with log.open("wb") as file:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    wait_for(lambda: "Server listening" in log.read_text(), server, log)
    return server


def _own_ssh(folder: Path, name: str, address: str) -> Path:
    """A folder with an `ssh` that knows the host."""
    known = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"{address} {known}")
    (folder / "ssh_config").write_text(
        f"Host {name}\n  HostName {address}\n  User root\n  IdentityFile {folder}/user\n"
        f"  UserKnownHostsFile {folder}/known\n"
    )
    programs = folder / "bin"
    programs.mkdir()
    real = shutil.which("ssh")
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(folder))}/ssh_config "$@"\n')
    (programs / "ssh").chmod(0o755)
    return programs


def tidy(folder: Path) -> None:
    """Remove what is left of a host's files."""
    with suppress(OSError):
        shutil.rmtree(folder)
