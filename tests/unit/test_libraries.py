"""The libraries of a sysroot that is built here: how they are built, and which files are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from quizmatrix.build.zfs.libraries import LIBRARIES, Library, configuration, take
from quizmatrix.build.zfs.sysroot import Sysroot
from quizmatrix.core.errors import DamagedError
from quizmatrix.model.arch import load_arch

PKG_CONFIG = """\
prefix=/usr
libdir=${prefix}/lib
includedir=${prefix}/include
Name: tool
Description: a tool
Version: 1
Cflags: -I${includedir}/tool
Libs: -L${libdir} -ltool
"""

TOOL = Library(
    source="tool",
    make=(("libtool.a",),),
    files={"include/tool": ("src/*.h",), "lib": ("libtool.a",), "lib/pkgconfig": ("tool.pc",)},
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files of a source tree after a build."""
    folder = tmp_path / "tree"
    (folder / "src").mkdir(parents=True)
    for name in ("src/a.h", "src/b.h", "src/a.c", "libtool.a", "libtool.la"):
        (folder / name).touch()
    (folder / "tool.pc").write_text(PKG_CONFIG)
    return folder


def test_what_is_taken_out_of_a_tree(tree: Path, tmp_path: Path) -> None:
    take(TOOL, tree, tmp_path / "usr")
    files = {str(path.relative_to(tmp_path)) for path in (tmp_path / "usr").rglob("*") if path.is_file()}
    assert files == {
        "usr/include/tool/a.h",
        "usr/include/tool/b.h",
        "usr/lib/libtool.a",
        "usr/lib/pkgconfig/tool.pc",
    }


def test_what_is_not_there_is_named(tree: Path, tmp_path: Path) -> None:
    (tree / "tool.pc").unlink()
    with pytest.raises(DamagedError, match=r"source of tool has an unknown layout.*there is no tool\.pc"):
        take(TOOL, tree, tmp_path / "usr")


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
def test_a_description_leads_into_the_sysroot(tree: Path, tmp_path: Path) -> None:
    take(TOOL, tree, tmp_path / "root/usr")
    usr = tmp_path / "root/usr"
    sysroot = Sysroot(
        folder=tmp_path / "root", suite="", compiler="cc", packages=[usr / "lib/pkgconfig"], libraries=[]
    )
    said = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "tool"],
        env={"PATH": "/usr/bin:/bin", **sysroot.environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [f"-I{usr}/include/tool", f"-L{usr}/lib", "-ltool"]


@pytest.mark.parametrize(("arch", "order"), [("ppc64", "-DB_ENDIAN"), ("loongarch64", "-DL_ENDIAN")])
def test_the_byte_order_is_the_architectures(arch: str, order: str) -> None:
    facts = load_arch(arch).facts
    words = {library.source: configuration(library, facts) for library in LIBRARIES}
    assert order in words["openssl"]
    assert f"--host={facts.cross_prefix.removesuffix('-')}" in words["util-linux"]
    assert words["libaio"] == []


def test_no_library_is_shared() -> None:
    names = [name for library in LIBRARIES for name in library.files["lib"]]
    assert all(name.endswith(".a") for name in names)
