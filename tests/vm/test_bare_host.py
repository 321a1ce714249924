"""Runs of a user without a home directory or name, and on file systems without locks."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_bare_host import NOBODY, TOP
from tests.vm.conftest import KERNEL
from tests.vm.test_in_use import DEBIAN, copy_of_cache


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that any user can reach, with its own cache."""
    if os.getuid() != 0:
        pytest.skip("only root becomes another user")
    folder = Path(tempfile.mkdtemp(prefix="quizmatrix-test-"))
    try:
        copy_of_cache(folder / "cache")
        for path in (folder, *(folder / name for name in ("cache", "cache/kernels", "cache/images"))):
            os.chown(path, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.timeout(1800)
def test_no_home_no_name_and_no_locks(place: Path) -> None:
    places = {f"QUIZMATRIX_{name}_DIR": str(place / name.lower()) for name in ("CACHE", "STATE", "CONFIG")}
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def run(*argv: str, locks: bool = True) -> subprocess.CompletedProcess[str]:
        refuse = [] if locks else [sys.executable, "-m", "tests.nolocks", "ENOLCK"]
        return subprocess.run(
            [*refuse, *become, sys.executable, "-m", "quizmatrix", *argv],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP)} | places,
            capture_output=True,
            text=True,
            check=False,
            cwd=TOP,
        )

    if "No module named" in run("--version").stderr or "seccomp" in run("--version", locks=False).stderr:
        pytest.skip("other users cannot read this checkout, or may not refuse calls of their own")
    cell = (f"{KERNEL}-x86_64", *DEBIAN, "--offline", "--no-work-tree")
    done = run("run", "--only", *cell, "--", "id -u; echo kept >/shared/f", locks=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    said = [line for line in done.stderr.splitlines() if "has no locks (No locks available)" in line]
    assert len(said) == 1, done.stderr
    (kept,) = (place / "state/runs").glob("2*/*/artifacts/f")
    assert kept.stat().st_uid == NOBODY
    assert "1 run: 1 passed" in run("runs", "show", f"{KERNEL}-x86_64", "--over", "1d").stdout
    # Over SSH, since asyncssh asks for the user's name.
    done = run("shell", *cell, "--", "id", "-u")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert "no locks" not in done.stderr
