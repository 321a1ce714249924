"""Fixtures for tests with real VMs: kernels 6.1 for x86_64 and s390x, through the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm import background

_BUILDING = pytest.StashKey[subprocess.Popen[bytes] | None]()

ARCHES = ("x86_64", "s390x")
KERNEL = "6.1"

# Seconds; a test that takes this long hangs.
LIMIT = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A longer limit for all tests here: each boots guests, and emulation on a busy host is slow.

    Those that need what takes long to build come last.
    """
    for item in items:
        if is_here(item):
            item.add_marker(pytest.mark.vm)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LIMIT))
    items.sort(key=lambda item: background.rank(item.path.stem) if is_here(item) else 0)


def is_here(item: pytest.Item) -> bool:
    """Whether a test is in this folder."""
    return Path(__file__).parent in item.path.parents


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build that, once it is known which tests run."""
    if not session.config.option.collectonly:
        session.config.stash[_BUILDING] = background.start({item.path.stem for item in session.items})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what is left of it."""
    if (building := session.config.stash.get(_BUILDING, None)) is not None:
        background.stop(building)


@pytest.fixture(scope="session", autouse=True)
def artifacts() -> None:
    """The kernels and images, fetched where this user's cache lacks them."""
    for arch in ARCHES:
        prepare(f"{KERNEL}-{arch}")


@pytest.fixture(scope="module")
def prepared(request: pytest.FixtureRequest) -> None:
    """The kernel and base image of the module's CELL, built where this user's cache lacks them."""
    prepare(request.module.CELL)


def prepare(cell: str) -> None:
    """Prepare a cell in this user's cache."""
    subprocess.run([sys.executable, "-m", "quizmatrix", "prepare", "--only", cell], check=True)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The user's environment and cache, with a state directory for this test."""
    return dict(os.environ) | {
        "QUIZMATRIX_STATE_DIR": str(tmp_path / "state"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "COLUMNS": "120",
    }


Quizmatrix = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def quizmatrix(tmp_path: Path, environment: dict[str, str]) -> Quizmatrix:
    """Runs `quizmatrix` with these arguments, in an empty folder."""
    (tmp_path / "here").mkdir()

    def run(*argv: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"cwd": tmp_path / "here", "env": environment} | options
        return subprocess.run(
            [sys.executable, "-m", "quizmatrix", *argv], capture_output=True, check=False, **given
        )

    return run


class Sweep:
    """A finished run over both architectures."""

    def __init__(self, done: subprocess.CompletedProcess[bytes], folder: Path) -> None:
        """folder: the run directory."""
        self.status = done.returncode
        self.report = done.stdout.decode()
        self.said = done.stderr.decode()
        self.folder = folder
        self.results = json.loads((folder / "results.json").read_bytes())
        self.cells: dict[str, dict[str, Any]] = {cell["arch"]: cell for cell in self.results["cells"]}


@pytest.fixture
def sweep(tmp_path: Path, quizmatrix: Quizmatrix) -> Callable[..., Sweep]:
    """Runs a command in 6.1 on both architectures at once."""

    def run(*command: str, options: tuple[str, ...] = (), **more: Any) -> Sweep:
        folder = tmp_path / "run"
        argv = ["run", "-k", KERNEL, "-a", ",".join(ARCHES), "--offline", "--output", str(folder), *options]
        done = quizmatrix(*argv, "--", *command, **more)
        assert folder.exists(), done.stderr.decode()
        return Sweep(done, folder)

    return run
