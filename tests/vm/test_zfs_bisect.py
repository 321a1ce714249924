"""`git bisect run quizmatrix run --build` in a tree of OpenZFS: a toy with a real module, and real guests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toyzfs import CELL, make_tree, module, own_cache

Git = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return own_cache(tmp_path / "cache")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "zfs")


@pytest.fixture
def git(tree: Path, cache: Path, environment: dict[str, str], tmp_path: Path) -> Git:
    (tmp_path / "gitconfig").write_text("[user]\nname = T\nemail = t@example.org\n")
    own = {"QUIZMATRIX_CACHE_DIR": str(cache), "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}

    def run(*words: str) -> str:
        argv = ["git", *words]
        done = subprocess.run(argv, cwd=tree, env=environment | own, capture_output=True, check=False)
        return done.stdout.decode() + done.stderr.decode()

    return run


@pytest.fixture
def history(tree: Path, git: Git) -> Path:
    """Seven commits, each with its number in the module. The fourth does not compile."""
    git("init", "--quiet")
    for number in range(1, 8):
        text = "#error no\n" if number == 4 else ""
        (tree / "module/zfs.c").write_text(text + module(number))
        git("add", "--all")
        git("commit", "--quiet", "-m", f"commit {number}")
    return tree


@pytest.mark.timeout(900)
def test_git_finds_the_commit(history: Path, git: Git, cache: Path) -> None:
    script = history / "repro.sh"
    script.write_text('#!/bin/sh\ntest "$(cat /sys/module/zfs/parameters/number)" -lt 6\n')
    script.chmod(0o755)
    # It tries the fourth first, which does not compile.
    git("bisect", "start", "HEAD", "HEAD~6")
    argv = [sys.executable, "-m", "quizmatrix", "run", "--build", "--only", CELL, "--", "./repro.sh"]
    said = git("bisect", "run", *argv)
    assert "is the first bad commit" in said, said
    assert "commit 6" in said, said
    assert "bisect skip" in git("bisect", "log"), said
    (work,) = (path for path in (cache / "zfs").iterdir() if path.name.startswith("zfs-"))
    # Configured once for the programs and once for the modules, and the programs compiled once.
    assert (work / "configured").read_text().split() == ["configured"] * 2
    assert (work / "compiled").read_text().split().count("zpool") == 1
