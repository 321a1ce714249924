"""Users without a home directory or name, and file systems without locks, as in containers."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from quizmatrix.core import filesystem
from quizmatrix.runs.history import database
from tests.unit.conftest import TOY

TOP = Path(__file__).parents[2]

# A user id that no user has.
NOBODY = 4242


def bare(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run quizmatrix as a user that /etc/passwd does not know, without HOME."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP)} | variables
    can = subprocess.run([*become, sys.executable, "-c", "import quizmatrix"], env=environment, check=False)
    if can.returncode != 0:
        pytest.skip("other users cannot read this checkout")
    return subprocess.run(
        [*become, sys.executable, "-m", "quizmatrix", *argv],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


@pytest.mark.parametrize(
    ("argv", "variable"),
    [
        (("run", "--only", "6.1-x86_64", "--", "true"), "QUIZMATRIX_CACHE_DIR"),
        (("cells",), "QUIZMATRIX_CONFIG_DIR"),
        (("kernel", "list"), "QUIZMATRIX_CACHE_DIR"),
        (("runs", "list"), "QUIZMATRIX_STATE_DIR"),
        (("doctor",), "QUIZMATRIX_CACHE_DIR"),
        (("clean",), "QUIZMATRIX_CACHE_DIR"),
        (("nightly", "status"), "QUIZMATRIX_CONFIG_DIR"),
    ],
)
def test_a_user_without_a_home_is_told_what_to_name(argv: tuple[str, ...], variable: str) -> None:
    done = bare(*argv)
    assert done.returncode == 125
    said = (
        f"quizmatrix: this user has no home directory: HOME is not set, and no user has the number {NOBODY}"
    )
    assert done.stderr.startswith(f"{said}\n  Set HOME, or {variable} ")
    assert "Traceback" not in done.stderr


def test_a_user_without_a_home_who_names_the_folders() -> None:
    # Commands that only read write nothing.
    places = {f"QUIZMATRIX_{name}_DIR": f"/nonexistent/{name}" for name in ("CACHE", "STATE", "CONFIG")}
    for argv in (("cells", "quick"), ("kernel", "list"), ("image", "list"), ("module", "list"), ("clean",)):
        done = bare(*argv, **places)
        assert (done.returncode, done.stderr) == (0, ""), argv
    done = bare("run", "--dry-run", "--only", "6.1-x86_64", "--", "true", **places)
    assert done.returncode == 0, done.stderr


def test_a_user_without_a_home_builds() -> None:
    """For such users ccache(1), if it is installed, would fail and compile nothing."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    # Other users cannot reach pytest's own folders.
    with tempfile.TemporaryDirectory(prefix="quizmatrix-test-") as name:
        shutil.copytree(TOY, Path(name, "toy"))
        for path in (Path(name), *Path(name).rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        places = {f"QUIZMATRIX_{part}_DIR": f"{name}/{part}" for part in ("CACHE", "STATE", "CONFIG")}
        done = bare("kernel", "build", f"path:{name}/toy", **places)
        assert done.returncode == 0, done.stderr
        assert ": ready: 6.1.9-" in done.stdout


def without_locks(number: str, script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process in which the kernel refuses every lock with this errno."""
    words = [sys.executable, "-m", "tests.nolocks", number, sys.executable, "-c", script, *argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=TOP)
    if "seccomp" in done.stderr:
        pytest.skip("this host lets no program refuse calls of its own")
    return done


WORK = """
import sys, anyio
from pathlib import Path
from quizmatrix.core import paths, uses
from quizmatrix.runs import directory
from quizmatrix.runs.history import database

async def work():
    async with paths.locked(paths.cache_dir() / "locks/x.lock"):
        held = uses.Uses()
        kernel = paths.cache_dir() / "kernels/k"
        kernel.mkdir(parents=True)
        assert await held.hold(kernel)
    with uses.using_cache(print):
        pass

anyio.run(work)
run = directory.create(None, ["true"])
run.finish([], 0)
for _ in range(2):
    with database.connected() as connection, database.writing(connection):
        connection.execute("INSERT INTO names (name) VALUES (hex(randomblob(4)))")
        assert (database.path().parent / database.DOT_LOCK).is_dir(), "nobody keeps others out"
(said,) = paths.without_locks()
print(said)
"""


@pytest.mark.parametrize("number", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_said_once_and_worked_on(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "state"))
    # A file that was made where there are locks, in WAL mode.
    with database.connected() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    done = without_locks(number, WORK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"the file system of {tmp_path / 'cache/locks'} has no locks (")
    assert not (tmp_path / "state" / database.DOT_LOCK).exists()
    with closing(sqlite3.connect(database.path())) as connection:
        assert connection.execute("SELECT count(*) FROM names").fetchone() == (2,)
    # A command prints the note at its end, unless --quiet is given.
    command = "import sys; from quizmatrix.cli import run_command; sys.exit(run_command(sys.argv[1:]))"
    said = without_locks(number, command, "runs", "list").stderr
    assert said.startswith(f"quizmatrix: the file system of {tmp_path / 'state'} has no locks (")
    assert said.count("\n") == 1
    assert without_locks(number, command, "clean", "--runs").returncode == 0


def test_what_a_killed_process_has_left_of_a_lock_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path))
    with database.connected():
        pass
    (tmp_path / database.DOT_LOCK).mkdir()
    script = (
        "from quizmatrix.runs.history import database\n"
        "database._PATIENCE = 0.1\n"
        "try:\n    with database.connected(): pass\n"
        "except Exception as error: print(error.render())"
    )
    said = without_locks("ENOLCK", script).stdout
    assert "database is locked" in said
    assert f"if none does, one was killed: rmdir {tmp_path / database.DOT_LOCK}" in said


def test_what_lies_on_a_server(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    line = f"61 1 {os.major(device)}:{os.minor(device)} / /home rw shared:1 - {{}} srv:/home rw\n"
    other = "22 1 0:99 / /proc rw - proc proc rw\nrubbish\n"
    for kind, is_remote in (("nfs4", True), ("lustre", True), ("ext4", False), ("fuse.sshfs", True)):
        mounts.write_text(other + line.format(kind))
        assert filesystem.is_remote(tmp_path, mounts) == is_remote
    assert not filesystem.is_remote(tmp_path / "gone", mounts)
