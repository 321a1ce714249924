"""Fetches OpenZFS's sources from Debian's archive to the user's cache, for tests and benchmarks."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import paths
from quizmatrix.core.errors import NotFetchedError
from quizmatrix.debian import apt
from quizmatrix.model.archive import load_archive

# Where the source of each release that a Debian has comes from: a suite, and a version there. The next is
# asked where a mirror has an index and not the files that it names.
RELEASES = {
    "2.1": (("bookworm", ""),),
    "2.3": (("trixie", ""), ("bookworm-backports", "")),
    "2.4": (("sid", ""), ("trixie-backports", "=2.4.3-1~bpo13+1")),
}
NEWEST = "2.4"

# Suites that only these tests use; kernels do not come from them.
ARCHIVE = """
[suite.trixie-backports]
mirrors = ["http://deb.debian.org/debian"]
arches  = []

[suite.bookworm-backports]
mirrors = ["http://deb.debian.org/debian"]
arches  = []
"""


def source_tree(scratch: Path, release: str = NEWEST) -> Path:
    """The unpacked source, always in the same folder, so that its builds can be reused."""
    name = "zfs" if release == NEWEST else f"zfs-{release}"
    place = paths.cache_dir() / "tests/openzfs" / name
    if not place.is_dir():
        scratch.mkdir(exist_ok=True)
        archive = anyio.run(_fetch, scratch, release)
        place.parent.mkdir(parents=True, exist_ok=True)
        unpacked = Path(tempfile.mkdtemp(dir=place.parent))
        unpacked.chmod(0o755)
        argv = ["tar", "--extract", "--strip-components=1", f"--file={archive}", f"--directory={unpacked}"]
        subprocess.run(argv, check=True)
        try:
            unpacked.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(unpacked)
    return place


async def _fetch(scratch: Path, release: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        (scratch / "debian.toml").write_text(ARCHIVE)
        patch.setenv("QUIZMATRIX_CONFIG_DIR", str(scratch))
        archive = load_archive()
    for suite, version in RELEASES[release]:
        root = apt.AptRoot(archive, suite, "amd64", sources=True)
        try:
            await root.update()
            await root.download_sources([f"zfs-linux{version}"], scratch, only="tar")
        except NotFetchedError as error:
            print(error)
            continue
        (found,) = scratch.glob("zfs-linux_*.orig.tar.*[!c]")
        return found
    raise AssertionError(f"Debian's archive gives no source of OpenZFS {release}")
