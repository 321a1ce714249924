"""Bisecting with real guests: commits of a repository by git, and released kernels by quizmatrix."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quizmatrix.kernel import source
from quizmatrix.model.arch import load_arch
from tests.vm.conftest import Quizmatrix

BUILT = "debian-source:6.1"
TOY = Path(__file__).parents[1] / "toy-kernel"
# The result of its build boots: it is a kernel built earlier, with another number in its version.
VMLINUX = """vmlinux:
	@echo "  CC      toy.o"
	@$(CC) -o $(O)/toy toy.c
	@sed 's/#1 SMP/#{number} SMP/g' {image} >$(O)/vmlinux
	@echo $(RELEASE) >$(O)/include/config/kernel.release
	@echo 'ffffffff81000000 T _text' >$(O)/System.map

"""


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nine commits of a kernel that builds in a moment. The fifth commit does not compile."""
    subprocess.run([sys.executable, "-m", "quizmatrix", "prepare", "--only", f"{BUILT}-x86_64"], check=True)
    kernel = source.find(BUILT, load_arch("x86_64"))
    assert kernel is not None
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\nname = T\nemail = t@example.org\n")
    tree = tmp_path / "linux"
    shutil.copytree(TOY, tree)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    makefile = (tree / "Makefile").read_text()
    head, _, rest = makefile.partition("vmlinux:\n")
    tail = rest.partition("\n\n")[2]
    program = (tree / "toy.c").read_text()
    for number in range(1, 10):
        recipe = VMLINUX.format(number=number, image=kernel.image)
        (tree / "Makefile").write_text(f"{head}{recipe}{tail}")
        (tree / "toy.c").write_text("#error no\n" if number == 5 else program)
        for words in (["add", "--all"], ["commit", "--quiet", "-m", f"commit {number}"]):
            subprocess.run(["git", *words], cwd=tree, check=True)
    return tree


@pytest.mark.timeout(1200)
def test_git_finds_the_commit(history: Path, environment: dict[str, str]) -> None:
    def git(*words: str) -> str:
        env = environment | {"GIT_CONFIG_GLOBAL": os.environ["GIT_CONFIG_GLOBAL"]}
        done = subprocess.run(["git", *words], cwd=history, env=env, capture_output=True, check=False)
        return done.stdout.decode() + done.stderr.decode()

    git("bisect", "start", "HEAD", "HEAD~8")
    run = [sys.executable, "-m", "quizmatrix", "run", "--only", "path:.-x86_64", "--offline"]
    # It fails from the seventh commit on; the fifth is tried first, and skipped.
    said = git("bisect", "run", *run, "--", 'test "$(uname -v | cut -c 2)" -lt 7')
    assert "is the first bad commit" in said, said
    assert "commit 7" in said, said
    assert "bisect skip" in git("bisect", "log"), said


def test_the_release_is_found(quizmatrix: Quizmatrix) -> None:
    done = quizmatrix("bisect", "6.1", "newest", "-a", "x86_64", "--", 'test "$(uname -r | cut -c 1)" = 6')
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    answer = said.splitlines()[-2]
    assert answer.startswith("newest is the first that fails: 6."), said
    assert answer.endswith(" passed, newest failed (1)."), said
    alike = quizmatrix("bisect", "6.12", "6.1", "-a", "x86_64", "--", "true")
    assert alike.returncode == 125
    assert b"6.1 and 6.12 end alike" in alike.stdout
