"""Fixtures for several unit tests: a toy tree that builds like a kernel's source, in a moment."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TOY = Path(__file__).parents[1] / "toy-kernel"

# No test is one of this host's speed: a busy one is slow at making up inputs, too.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="package", autouse=True)
def nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No unit test finds or harms the cache, runs and settings of who runs it; tests of VMs use them."""
    top = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "STATE", "CONFIG"):
            patch.setenv(f"QUIZMATRIX_{name}_DIR", str(top / name.lower()))
        yield


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy kernel's source (6.1.9), with a cache and settings of this test's own."""
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path / "config"))
    path = tmp_path / "a source with spaces"
    shutil.copytree(TOY, path)
    return path
