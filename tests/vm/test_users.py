"""Commands of unprivileged users, in the guest and on the host."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix, Sweep

WRITES = """set -e
    echo hi >/dev/stdout; echo why >/dev/stderr
    echo one >>/shared/out; echo two >>/shared/out
    mkdir /shared/folder; echo three >/shared/folder/file; chmod 700 /shared/folder/file
    id -u; id -g; id -G; echo $HOME; touch /tmp/mine; [ -O /shared/out ]"""
SPECIAL = """set -e
    cd /shared
    mkfifo pipe; timeout 20 cat pipe >/tmp/out & sleep 0.2; echo through >pipe; wait; cat /tmp/out
    exec 3>gone; rm gone; echo text >&3; stat -L -c %s /proc/self/fd/3
    ln -s /etc/passwd leads-out; ln -s out stays
    mknod null c 1 3"""


LEFT = {"out": "0o644", "folder": "0o755", "folder/file": "0o700"}


def left_in(folder: Path) -> dict[str, str]:
    """The files that WRITES and SPECIAL left in a cell's artifacts, with modes, without symlinks."""
    artifacts = folder / "artifacts"
    assert (artifacts / "out").read_text() == "one\ntwo\n"
    assert (artifacts / "stays").readlink() == Path("out")
    assert (artifacts / "leads-out").read_text() == "symbolic link to /etc/passwd\n"
    (artifacts / "leads-out").unlink()
    return {
        str(path.relative_to(artifacts)): oct(path.lstat().st_mode & 0o777)
        for path in artifacts.rglob("*")
        if not path.is_symlink()
    }


def test_of_the_guest(sweep: Callable[..., Sweep]) -> None:
    done = sweep(f"{WRITES}\n{SPECIAL}", options=("--user", "nobody"))
    for cell in done.cells.values():
        # Only root can make devices.
        assert cell["outcome"] == "failed", cell
        folder = done.folder / cell["cell"]
        ids = "65534\n65534\n65534\n/\n"
        assert (folder / "stdout").read_text() == f"hi\n{ids}through\n5\n"
        assert (folder / "stderr").read_text().startswith("why\nmknod: ")
        assert left_in(folder) == LEFT


def test_by_number(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    argv = ["run", "--only", "6.1-s390x", "--user", "1000:100", "--output", str(tmp_path / "run"), "--"]
    done = quizmatrix(*argv, WRITES)
    assert (done.returncode, done.stdout) == (0, b"hi\n1000\n100\n100\n/\n"), done.stderr
    assert (tmp_path / "run/6.1-s390x/artifacts/out").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("user", ["somebody", "root:nogroups"])
def test_who_is_not_there(user: str, quizmatrix: Quizmatrix) -> None:
    done = quizmatrix("run", "--only", "6.1-s390x", "--user", user, "--", "echo reached")
    assert (done.returncode, done.stdout) == (125, b"")
    assert f"the guest has no {'group nogroups' if ':' in user else 'user somebody'}".encode() in done.stderr


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="everything here runs without root's rights"
)
def test_of_the_host(environment: dict[str, str], tmp_path: Path) -> None:
    """An unprivileged user: root's chown would hide errors. It can read root's kernels and Python."""
    uid = 54321
    cache = Path(os.environ.get("QUIZMATRIX_CACHE_DIR", Path.home() / ".cache/quizmatrix"))
    own = {name: tmp_path / name for name in ("cache", "state", "home", "here")}
    for folder in own.values():
        folder.mkdir()
    for name in ("kernels", "images"):
        (own["cache"] / name).symlink_to(cache / name)
    for folder in (tmp_path, *own.values()):
        os.chown(folder, uid, uid)
    settings = {
        "HOME": str(own["home"]),
        "QUIZMATRIX_CACHE_DIR": str(own["cache"]),
        "QUIZMATRIX_STATE_DIR": str(own["state"]),
    }
    kept = "-all,+dac_read_search"
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    become += [f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"]
    argv = ["run", "--only", "6.1-s390x", "--offline", "--user", "nobody", "--", f"{WRITES}\n{SPECIAL}"]
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *become, sys.executable, "-m", "quizmatrix", *argv],
        cwd=own["here"],
        env=environment | settings,
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"hi\n65534\n65534\n65534\n/\nthrough\n5\n", done.stderr.decode()
    folder = own["state"] / "runs/latest/6.1-s390x"
    assert left_in(folder) == LEFT
    assert (folder / "artifacts/out").stat().st_uid == uid
