"""Hosts over ssh: a host in namespaces of its own, with a real sshd."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix
from tests.vm.namespaces import ssh_host, tidy, why_not
from tests.vm.processes import qemus_with, wait_for

CELL = "6.1-x86_64"

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of a host that is named zed, and the environment in which ssh knows it."""
    folder = tmp_path_factory.mktemp("zed")
    with ssh_host(folder, "zed") as environment:
        yield folder, environment
    assert not qemus_with(str(folder))
    tidy(folder)


def test_a_host_that_ssh_reaches_runs_the_cells(
    host: tuple[Path, dict[str, str]], quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    folder, known = host
    (tmp_path / "here/file").write_text("from here\n")
    own = {**environment, "PATH": known["PATH"]}
    argv = ["run", "--only", CELL, "--on", "ssh:zed", "--offline", "--", "cat file; exit 3"]
    done = quizmatrix(*argv, env=own)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"from here\n", b"")
    # It is a host without this one's cache, and its worker has ended with the run.
    assert (folder / "cache/travel/trees").is_dir()
    wait_for(lambda: not workers())
    # A host that is not there is named, and the other runs all.
    argv = ["run", "-k", "6.1", "-a", "x86_64", "--on", "ssh:zed,no-such-host", "--offline", "--", "true"]
    done = quizmatrix(*argv, env=own)
    assert done.returncode == 0
    assert b"no-such-host: " in done.stderr
    done = quizmatrix("run", "--only", CELL, "--on", "ssh:no-such-host", "--offline", "--", "true", env=own)
    assert done.returncode == 125
    assert b"no host could be had: no-such-host: " in done.stderr


def test_a_submitter_that_is_killed_leaves_nothing_there(
    host: tuple[Path, dict[str, str]], environment: dict[str, str], tmp_path: Path
) -> None:
    folder, known = host
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", CELL, "--on", "ssh:zed", "--offline", "--"]
    run = subprocess.Popen(
        [*argv, "echo begun; sleep 300"],
        cwd=tmp_path,
        env={**environment, "PATH": known["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        assert qemus_with(str(folder))
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: not qemus_with(str(folder)))
    wait_for(lambda: not workers())


def workers() -> list[int]:
    """The processes of workers that were started for a run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"worker" in words and b"zed" in words and os.getpid() != int(place.name):
            found.append(int(place.name))
    return found
