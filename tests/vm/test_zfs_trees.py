"""Builds of two OpenZFS trees side by side: toys with a real module, and real guests."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.toyzfs import CELL, make_tree, module, own_cache
from tests.vm.conftest import Quizmatrix


@pytest.mark.timeout(900)
def test_each_tree_has_its_own_build(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["QUIZMATRIX_CACHE_DIR"] = str(own_cache(tmp_path / "cache"))
    one, two = make_tree(tmp_path / "one"), make_tree(tmp_path / "two")
    (one / "module/zfs.c").write_text(module(1))
    (two / "module/zfs.c").write_text(module(2))

    def build(tree: Path) -> list[str]:
        done = quizmatrix("zfs", "build", "--only", CELL, "-q", cwd=tree, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()[-1].split()

    def run(folder: Path) -> tuple[str, dict[str, Any], str]:
        """What the module's number is, the cell's result, and what was said."""
        argv = ["run", "--only", CELL, "-p", "zfs", "-v", "--output", str(folder / "run")]
        words = ["--", "cat /sys/module/zfs/parameters/number"]
        done = quizmatrix(*argv, *words, cwd=folder, env=environment)
        found = json.loads((folder / "run/results.json").read_bytes())["cells"][0]
        (folder / "run").rename(folder / f"run-{done.stdout.decode().strip()}")
        return done.stdout.decode().strip(), found, done.stderr.decode()

    assert build(one)[1:4:2] == ["built", "built"]
    number, cell, _ = run(tmp_path)
    assert (number, cell["built_from"]["tree"]) == ("1", str(one))
    # In a tree of which nothing was built, no other's build is taken.
    _, cell, said = run(two)
    assert (cell["outcome"], cell["built_from"]) == ("unprepared", None)
    assert "quizmatrix zfs build" in said
    build(two)
    for folder, wanted, tree in ((one, "1", one), (two, "2", two), (tmp_path, "2", two)):
        number, cell, said = run(folder)
        assert (number, cell["built_from"]) == (wanted, {"tree": str(tree), "head": ""})
        assert f"OpenZFS is from {tree}" in said
    listed = quizmatrix("zfs", "list", cwd=one, env=environment).stdout.decode().splitlines()
    assert [line.split()[1:] for line in listed[2:]] == [[str(one), "yes"], [str(two)]]


@pytest.mark.timeout(600)
def test_a_work_tree_of_git_takes_what_is_equal(
    quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["QUIZMATRIX_CACHE_DIR"] = str(own_cache(tmp_path / "cache"))
    tree, other = make_tree(tmp_path / "zfs"), tmp_path / "topic"
    (tree / "module/zfs.c").write_text(module(1))
    git = ["git", "-C", str(tree), "-c", "user.name=T", "-c", "user.email=t@example.org"]
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["commit", "--quiet", "-m", "one"],
        ["worktree", "add", "--quiet", "-b", "topic", str(other)],
    ):
        subprocess.run([*git, *words], check=True)
    rows = {}
    for place in (tree, other):
        done = quizmatrix("zfs", "build", "--only", CELL, cwd=place, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        rows[place] = done.stdout.decode().splitlines()[-1].split()
    assert rows[other] == [CELL, "reused", "reused"]
    assert b"to compile first" not in done.stderr
    listed = quizmatrix("zfs", "list", cwd=other, env=environment).stdout.decode()
    assert [line.split()[2] for line in listed.splitlines()[2:]] == ["topic", "main"]
