"""OpenZFS of Debian's sources, built for kernels that were built here: the profiles zfs and ztest."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from quizmatrix import apt, process
from quizmatrix.arch import load_arch
from quizmatrix.cells import folder_name
from quizmatrix.kernel import buildlayer, source
from quizmatrix.kernel.artifact import Kernel

ARCHES = ("x86_64", "s390x")
KERNEL = "debian-source:6.1"
# Its OpenZFS knows 6.1, and its programs are of the same version. Under a name of the test's own: images
# of it are not those that this user's guests get.
SUITE = "openzfs"
ARCHIVE = """
[suite.openzfs]
name    = "bookworm"
mirrors = ["http://deb.debian.org/debian"]
arches  = ["amd64", "s390x"]
"""
IMAGE = ("--image", f"debian:{SUITE}")

# Seconds; of the kernels, the images and OpenZFS, emulated and on two cores.
LIMIT = 5400

pytestmark = pytest.mark.timeout(LIMIT)


def quizmatrix(*argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "quizmatrix", *argv], capture_output=True, check=False)


async def sources(into: Path) -> Path:
    """The folder of the sources that Debian's package for DKMS has."""
    root = apt.AptRoot(apt.load_archive(), SUITE, "amd64")
    await root.update()
    await apt.unpack(await root.download(await root.show("zfs-dkms"), into), into)
    (found,) = (into / "usr/src").glob("zfs-*")
    return found


def build(kernel: Kernel, arch: str, place: Path) -> None:
    """Configure for the kernel, compile, and install into its build layer."""
    facts = load_arch(arch).facts
    tree = kernel.build_tree
    assert tree is not None
    configure = ["./configure", "--with-config=kernel", f"--with-linux={(tree / 'source').resolve()}"]
    configure.append(f"--with-linux-obj={tree}")
    environment = dict(os.environ)
    if not load_arch(arch).is_native:
        configure += [f"--host={facts.cross_prefix.removesuffix('-')}", "--build=x86_64-linux-gnu"]
        # For the kernel's own make, which configure's probes run.
        environment |= {"ARCH": facts.build.make_arch, "CROSS_COMPILE": facts.cross_prefix}
    jobs = f"-j{process.usable_cpus()}"
    install = f"INSTALL_MOD_PATH={buildlayer.root_of(kernel) / 'usr'}"
    for step in (configure, ["make", jobs], ["make", "-C", "module", install, "modules_install"]):
        done = subprocess.run(step, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The kernels, the images, and OpenZFS in the build layers, where this user's cache lacks them."""
    config = tmp_path_factory.mktemp("config")
    (config / "debian.toml").write_text(ARCHIVE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIZMATRIX_CONFIG_DIR", str(config))
        prepare(tmp_path_factory)
        yield


def prepare(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `built` promises."""
    only = ",".join(f"{KERNEL}-{arch}" for arch in ARCHES)
    subprocess.run([sys.executable, "-m", "quizmatrix", "prepare", "--only", only], check=True)
    argv = ["image", "build", "-a", ",".join(ARCHES), "--suite", SUITE, "--include", "zfsutils-linux,ksh"]
    subprocess.run([sys.executable, "-m", "quizmatrix", *argv], check=True)
    top = tmp_path_factory.mktemp("zfs")
    tree: Path | None = None
    for arch in ARCHES:
        kernel = source.find(KERNEL, load_arch(arch))
        assert kernel is not None
        if not buildlayer.has_module(kernel, "zfs"):
            tree = tree or anyio.run(sources, top)
            build(kernel, arch, Path(shutil.copytree(tree, top / arch, symlinks=True)))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Runs a script on both architectures; what it printed on each."""
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "state"))

    def run(profiles: str, script: str) -> dict[str, str]:
        folder = tmp_path / "run"
        argv = ["run", "-k", KERNEL, "-a", ",".join(ARCHES), *IMAGE, "-p", profiles, "--output", str(folder)]
        done = quizmatrix(*argv, "--", script)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        cells = json.loads((folder / "results.json").read_bytes())["cells"]
        return {cell["arch"]: (folder / folder_name(cell["cell"]) / "stdout").read_text() for cell in cells}

    return run


def test_a_pool(sweep: Callable[..., dict[str, str]]) -> None:
    script = """set -e
        [ -z "$(ls -A /etc/zfs)" ]
        zpool create tank mirror /dev/quizm0 /dev/quizm1
        zfs create -o compression=lz4 tank/a
        dd if=/dev/urandom of=/tank/a/file bs=1M count=20 2>/dev/null
        zfs snapshot tank/a@1; zfs send tank/a@1 | zfs receive tank/b
        cmp /tank/a/file /tank/b/file
        zpool scrub -w tank; zpool status -x; zpool export tank
        cat /sys/module/zfs/parameters/zfs_txg_timeout"""
    said = sweep("zfs:parameters=zfs_txg_timeout=7,memdev", script)
    assert said == dict.fromkeys(ARCHES, "all pools are healthy\n7\n")


def test_what_the_test_suite_wants(sweep: Callable[..., dict[str, str]]) -> None:
    script = """set -e
        id -un; sudo id -un; ls -s $FILES | cut -d' ' -f1; stat -c %s $FILES; stat -c %U $FILES
        [ $(df -m --output=size /var/tmp | tail -n 1) = 8192 ]
        sudo zpool create tank $FILES && sudo zpool destroy tank"""
    said = sweep("ztest", script)
    files = "0\n" * 3 + f"{4 << 30}\n" * 3 + "tester\n" * 3
    assert said == dict.fromkeys(ARCHES, f"tester\nroot\n{files}")
