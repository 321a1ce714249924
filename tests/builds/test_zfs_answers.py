"""OpenZFS's ./configure learns the same with precompiled headers as without (`make check-all`)."""

from pathlib import Path

import pytest

from quizmatrix.build.zfs import precompiled
from quizmatrix.cli import run_command
from quizmatrix.core import paths
from tests import linkedcache
from tests.openzfs import source_tree

# Seconds; of a kernel's build, and two times ./configure.
LIMIT = 3600

pytestmark = pytest.mark.timeout(LIMIT)


@pytest.mark.parametrize(
    ("release", "cell"),
    [
        ("2.4", "6.1-x86_64"),
        ("2.4", "6.12-x86_64"),
        ("2.4", "6.12-s390x"),
        ("2.3", "6.1-s390x"),
        ("2.1", "5.10-x86_64"),
        ("2.4", "debian-source:6.12-ppc64"),
    ],
)
def test_the_answers_are_the_same(
    release: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = source_tree(tmp_path / "source", release)

    def answers(name: str) -> str:
        cache = linkedcache.make(users, tmp_path / name, without=("zfs",))
        monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(cache))
        assert run_command(["zfs", "configure", "--cell", cell, "--source", str(tree)]) == 0
        (found,) = cache.glob("zfs/*/modules-*/zfs_config.h")
        # Kbuild notes how it compiled each module.
        (command,) = found.parent.glob("build/*/.vfs_fsync_2args.o.cmd")
        assert ("/conftest/compiler" in command.read_text()) == (name == "fast")
        return found.read_text()

    # Everything else that is missing is made in the user's cache.
    users = paths.cache_dir()
    fast = answers("fast")
    monkeypatch.setattr(precompiled, "environment", lambda _part: {})
    assert answers("plain") == fast
