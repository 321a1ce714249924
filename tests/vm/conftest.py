"""Fixtures for tests with real VMs: kernels 6.1 for x86_64 and s390x, through the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ARCHES = ("x86_64", "s390x")
KERNEL = "6.1"

# Seconds; a test that takes this long hangs.
LIMIT = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A longer limit for all tests here: each boots guests, and emulation on a busy host is slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LIMIT))


@pytest.fixture(scope="session", autouse=True)
def artifacts() -> None:
    """The kernels and images, fetched where this user's cache lacks them."""
    for arch in ARCHES:
        subprocess.run(
            [sys.executable, "-m", "quizmatrix", "prepare", "--only", f"{KERNEL}-{arch}"], check=True
        )


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
