"""A host without apt, dpkg-deb and Debian's keyring runs kernels that are not Debian's."""

import os
import shutil
from pathlib import Path

import pytest

from quizmatrix.core import paths
from quizmatrix.debian.host import TOOLS
from quizmatrix.image import own
from quizmatrix.model.arch import host_arch
from tests.vm.conftest import Quizmatrix

CELL = "debian-source:6.1-native"


def programs_of_an_image(archive: Path) -> dict[str, bytes]:
    """busybox out of a small image's cpio archive ("newc")."""
    data, found, at = archive.read_bytes(), {}, 0
    while at < len(data):
        size, length = (int(data[at + place : at + place + 8], 16) for place in (54, 94))
        name = data[at + 110 : at + 110 + length - 1].decode()
        start = (at + 110 + length + 3) // 4 * 4
        if name.startswith("guest/"):
            found[name.removeprefix("guest/")] = data[start : start + size]
        at = (start + size + 3) // 4 * 4
    return found


def test_without_debians_tools(quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path) -> None:
    if (host := host_arch().name) != "x86_64":
        pytest.skip(f"no kernel for {host} is built by these tests")
    assert quizmatrix("prepare", "-q", "--only", CELL).returncode == 0
    there, mine = paths.cache_dir() / "kernels", tmp_path / "cache/kernels"
    for kept in (there / "refs", *there.glob(f"*-{host}-*")):
        shutil.copytree(kept, mine / kept.name, symlinks=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    taken = {*TOOLS, *own.NAMES}
    for folder in environment["PATH"].split(os.pathsep):
        for path in Path(folder).glob("*"):
            if path.name not in taken and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    bare = environment | {
        "PATH": str(programs),
        "QUIZMATRIX_CACHE_DIR": str(tmp_path / "cache"),
        "QUIZMATRIX_CONFIG_DIR": str(tmp_path / "config"),
    }
    argv = ("run", "--only", CELL, "--", "uname -m; busybox | head -1")
    done = quizmatrix(*argv, env=bare)
    assert done.returncode == 125
    assert b"the small base image for x86_64 cannot be made: `apt-get` is not installed" in done.stderr
    assert b"a static busybox" in done.stderr
    image = next((paths.cache_dir() / "images").glob(f"small-{host}-*/base.cpio"))
    for name, data in programs_of_an_image(image).items():
        (programs / name).write_bytes(data)
        (programs / name).chmod(0o755)
    done = quizmatrix(*argv, env=bare)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"x86_64\nBusyBox v")
