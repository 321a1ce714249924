"""What several unit tests build: a tree that behaves like a kernel's source and takes a moment."""

import shutil
from pathlib import Path

import pytest

TOY = Path(__file__).parents[1] / "toy-kernel"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy kernel's source (6.1.9), with a cache and settings of this test's own."""
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path / "config"))
    path = tmp_path / "a source with spaces"
    shutil.copytree(TOY, path)
    return path
