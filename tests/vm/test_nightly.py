"""Nights started by a real cron(8), and its mails; in a mount namespace, so that no real crontab changes."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import ARCHES, KERNEL

# What cron(8) reads is empty, and sendmail is a program that appends to a file. touch: cron compares these
# folders' times in whole seconds, and overlooks what is written in the second in which it read them.
NAMESPACE = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay -o lowerdir=/usr/sbin,upperdir="$1/upper",workdir="$1/work" overlay /usr/sbin
mount -t tmpfs -o mode=1730,gid=$(stat -c %g /var/spool/cron/crontabs) none /var/spool/cron/crontabs
mount -t tmpfs none /etc/cron.d
touch -d @0 /var/spool/cron/crontabs /etc/cron.d
mount -t tmpfs none /run
mount --bind /dev/null /etc/crontab
printf '#!/bin/sh\\ncat >> "%s"\\n' "$2" > /usr/sbin/sendmail
chmod +x /usr/sbin/sendmail
exec cron -f
"""
THEIRS = b"MAILTO=me@example.org\n# my own\n17 4 1 1 * /bin/true 100\\%\n"


class Cron:
    """A cron daemon in its own namespace, in which commands can be run."""

    def __init__(self, pid: int, mails: Path) -> None:
        """mails: the file with all mails it sent."""
        self._pid = pid
        self._mails = mails

    def beside(self, *argv: str, cwd: Path = Path("/"), **options: Any) -> bytes:
        """Run a program in the daemon's namespace; returns its output. nsenter(1) itself changes to `/`."""
        words = [
            "nsenter",
            "-t",
            str(self._pid),
            "-m",
            "--",
            "sh",
            "-c",
            'cd "$0" && exec "$@"',
            str(cwd),
            *argv,
        ]
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            words, check=True, stdout=subprocess.PIPE, **options
        )
        return done.stdout

    def mail(self) -> str:
        """The mails since the last call; waits until its jobs have ended."""
        jobs = Path(f"/proc/{self._pid}/task/{self._pid}/children")
        until = time.monotonic() + 60
        while jobs.read_text().strip():
            assert time.monotonic() < until
            time.sleep(0.05)
        text = self._mails.read_text() if self._mails.exists() else ""
        self._mails.write_text("")
        return text


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[Cron]:
    if os.getuid() != 0 or not all(map(shutil.which, ("cron", "crontab", "unshare", "nsenter"))):
        pytest.skip("needs root and Debian's packages cron and util-linux")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this host lets nobody make a mount namespace")
    top, mails = tmp_path / "namespace", tmp_path / "mails"
    top.mkdir()
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        NAMESPACE,
        "sh",
        str(top),
        str(mails),
    ]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as daemon:
        try:
            comm = Path(f"/proc/{daemon.pid}/comm")
            until = time.monotonic() + 20
            while comm.read_text() != "cron\n":
                assert daemon.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            yield Cron(daemon.pid, mails)
        finally:
            daemon.kill()


@pytest.mark.timeout(600)
def test_nights_of_a_real_cron(cron: Cron, environment: dict[str, str], tmp_path: Path) -> None:
    here, state = tmp_path / "here", tmp_path / "state"
    here.mkdir()
    environment["QUIZMATRIX_CONFIG_DIR"] = str(tmp_path / "con fig 100%")
    words = ["-k", KERNEL, "-a", ",".join(ARCHES), "--offline", "--fail-on", "regression", "--keep", "2"]
    hook = f'cat > "{tmp_path}/heard"'

    def said(*argv: str) -> str:
        program = [sys.executable, "-m", "quizmatrix", "nightly"]
        return cron.beside(*program, *argv, env=environment, cwd=here).decode()

    def night() -> dict[str, Any]:
        """Install a job for the next minute, and wait until it has run."""
        when = datetime.now().astimezone() + timedelta(seconds=62)
        argv = ["--name", "n", "--at", f"{when:%H:%M}", *words, "--on-finish", hook]
        said("install", *argv, "--", "test ! -e broken")
        return seen_through(state / "nightly/n.json", since=datetime.now().astimezone())

    cron.beside("crontab", "-", input=THEIRS)
    first = night()
    assert (first["exit_code"], first["totals"], cron.mail()) == (0, {"passed": 2}, "")
    assert json.loads((tmp_path / "heard").read_bytes())["run"] == first["run"]
    (here / "broken").touch()
    second = night()
    assert second["exit_code"] == 1
    mail = cron.mail()
    assert mail.count("Subject:") == 1
    assert "\nregressed\n" in mail
    assert all(f"  {KERNEL}-{arch}  " in mail for arch in ARCHES)
    third = night()
    assert (third["exit_code"], third["totals"], cron.mail()) == (0, {"failed": 2}, "")
    # --keep 2
    runs = sorted(path.name for path in (state / "runs").iterdir() if not path.is_symlink())
    assert runs == [second["run"], third["run"]]
    shown = said("status")
    assert f"exit status 0, 2 failed, {third['run']}" in shown
    assert "  next  20" in shown
    assert cron.beside("crontab", "-l").startswith(THEIRS + b"# quizmatrix nightly n\n")
    said("remove", "n")
    assert cron.beside("crontab", "-l") == THEIRS


def seen_through(record: Path, since: datetime) -> dict[str, Any]:
    """The record of the night that begins next."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        if record.exists():
            found: dict[str, Any] = json.loads(record.read_bytes())
            if datetime.fromisoformat(found["started"]) > since and found["finished"]:
                return found
        time.sleep(0.2)
    raise AssertionError("no night has ended")
