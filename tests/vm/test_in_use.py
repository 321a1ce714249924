"""Commands that remove artifacts, during a run whose guest uses them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quizmatrix.core import paths
from quizmatrix.image.artifact import IMAGES
from quizmatrix.kernel import source
from quizmatrix.model.arch import load_arch
from tests.vm.conftest import KERNEL

DEBIAN = ("--image", "debian")


@pytest.fixture
def own_cache(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """A cache for this test, with hard links to the user's artifacts that the run needs."""
    copy_of_cache(tmp_path / "cache")
    return environment | {"QUIZMATRIX_CACHE_DIR": str(tmp_path / "cache")}


def copy_of_cache(own: Path) -> None:
    """Hard links to the artifacts of a cell with the Debian image, which are made if they are missing."""
    argv = [sys.executable, "-m", "quizmatrix", "prepare", "--only", f"{KERNEL}-x86_64", *DEBIAN]
    subprocess.run(argv, check=True)
    kernel = source.find(KERNEL, load_arch("x86_64"))
    assert kernel is not None
    images = [folder.name for folder in (paths.cache_dir() / "images").glob("[!.]*x86_64*")]
    names = [f"kernels/{kernel.folder.name}", "kernels/refs", "images/refs", *(f"images/{i}" for i in images)]
    for name in names:
        shutil.copytree(paths.cache_dir() / name, own / name, copy_function=link, symlinks=True)


def link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # the test's folder is on another disk
        shutil.copy2(source, target, follow_symlinks=False)


@pytest.mark.timeout(1800)
def test_nothing_is_taken_from_a_guest(tmp_path: Path, own_cache: dict[str, str]) -> None:
    def ask(*argv: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "quizmatrix", *argv]
        return subprocess.run(words, env=own_cache, capture_output=True, text=True, check=False)

    bound = tmp_path / "bound"
    bound.mkdir()
    # Afterwards it reads files that it has not read before: a module, and a program of the image.
    script = "echo up; until [ -e /mnt/go ]; do sleep 0.2; done; modprobe btrfs && python3 -c 'print(1 + 1)'"
    argv = [sys.executable, "-m", "quizmatrix", "run", "--only", f"{KERNEL}-x86_64", *DEBIAN, "--offline"]
    argv += ["--bind", f"{bound}:/mnt", "--no-work-tree", "--", script]
    with subprocess.Popen(argv, env=own_cache, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        kernel = ask("kernel", "list").stdout.splitlines()[2].split()[0]
        images = [line.split() for line in ask("image", "list").stdout.splitlines()[2:]]
        (image,) = [name for name, in_use, *_ in images if in_use == "yes"]
        said = [
            (ask(*words), what)
            for words, what in (
                (("kernel", "remove", kernel), f"the kernel {kernel}"),
                (("image", "remove", image), f"the image {image}"),
                (("clean",), "the cache "),
                (("clean", "--runs"), "the cache "),
            )
        ]
        (bound / "go").touch()
        assert run.stdout.read() == b"2\n"
    assert run.returncode == 0
    for done, what in said:
        assert done.returncode == 125
        assert f"{what}" in done.stderr
        assert f" is in use: by process {run.pid} (quizmatrix run --only {KERNEL}-x86_64" in done.stderr
    assert IMAGES.stored()  # the user's own, untouched
    assert ask("kernel", "remove", kernel).stdout == f"removed {kernel}\n"
    assert ask("clean", "--runs").returncode == 0
    assert list((tmp_path / "cache").iterdir()) == []
