"""Debian's source packages: their files, and how they are unpacked and patched."""

import subprocess
from pathlib import Path

import anyio
import pytest

from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import DamagedError, UnpreparedError
from quizmatrix.debian import sources

PATCH = "--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-{old}\n+{new}\n"


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_the_files_of_a_source_package(kind: str) -> None:
    upstream, debian = f"util-linux_2.38.1.orig.tar.{kind}", "util-linux_2.38.1-5+deb12u3.debian.tar.xz"
    signed = [upstream, f"{upstream}.asc", "util-linux_2.38.1-5+deb12u3.dsc", debian]
    assert sources.choose("util-linux", signed) == (upstream, debian)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["tool_1.tar.xz", "tool_1.dsc"],
        ["tool_1.orig.tar.gz", "tool_1-1.diff.gz", "tool_1-1.dsc"],
        ["tool_1.orig.tar.gz", "tool_1.orig-docs.tar.gz", "tool_1-1.debian.tar.xz"],
        ["tool_1.orig.tar.gz", "tool_2.orig.tar.gz", "tool_1-1.debian.tar.xz"],
        ["tool_1.orig.tar.gz.asc", "tool_1-1.debian.tar.xz"],
        ["other_1.orig.tar.gz", "other_1-1.debian.tar.xz"],
    ],
    ids=["nothing", "native", "1.0", "two parts", "two versions", "only the signature", "another's"],
)
def test_a_layout_that_is_not_known(names: list[str]) -> None:
    with pytest.raises(DamagedError, match="of tool has an unknown layout"):
        sources.choose("tool", names)


def archive(path: Path, files: dict[str, str], top: str) -> None:
    for name, text in files.items():
        file = path.parent / "made" / top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    command = ["tar", "--force-local", "-caf", str(path), "-C", str(path.parent / "made"), top]
    subprocess.run(command, check=True)


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A source package with two patches, the second on top of the first, and a series with comments."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    archive(folder / "tool_1%3a1.orig.tar.gz", {"tool.c": "one\n"}, "tool-1")
    files = {
        "patches/series": "# why\n\nz/first.patch -p1\nsecond.patch # last\n",
        "patches/z/first.patch": PATCH.format(name="tool.c", old="one", new="two"),
        "patches/second.patch": PATCH.format(name="tool.c", old="two", new="three"),
    }
    archive(folder / "tool_1%3a1-1.debian.tar.xz", files, "debian")
    subprocess.run(["rm", "-r", folder / "made"], check=True)
    return folder


def test_debians_patches_are_applied_in_their_order(fetched: Path, tmp_path: Path) -> None:
    tree = anyio.run(sources.unpack, fetched, "tool", tmp_path)
    assert tree == tmp_path / "tool"
    assert (tree / "tool.c").read_text() == "three\n"


def test_a_patch_that_does_not_fit(fetched: Path, tmp_path: Path) -> None:
    archive(fetched / "tool_1%3a1.orig.tar.gz", {"tool.c": "four\n"}, "tool-1")
    subprocess.run(["rm", "-r", fetched / "made"], check=True)
    with pytest.raises(UnpreparedError, match=r"source of tool could not be unpacked.*first\.patch"):
        anyio.run(sources.unpack, fetched, "tool", tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "x.c:1:10: fatal error: stdio.h: No such file or directory",
        "/usr/bin/powerpc64-linux-gnu-ld: cannot find -lc: No such file or directory",
        "configure: error: C compiler cannot create executables",
    ],
)
def test_a_cross_compiler_without_its_c_library(said: str, tmp_path: Path) -> None:
    async def play() -> None:
        argv = ["sh", "-c", 'echo "$0"; exit 1', said]
        log = tmp_path / "log"
        await BuildStep(fact="no", folder=tmp_path, log=log, advice=sources.ADVICE).run(argv)

    with pytest.raises(UnpreparedError) as caught:
        anyio.run(play)
    assert "libc6-dev-ARCH-cross" in caught.value.next_step
