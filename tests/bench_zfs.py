"""Measures OpenZFS builds: `make bench-zfs`, about forty minutes if the kernels are built.

From nothing: the CPU's seconds of `zfs build built`, its nine kernels being there, against nine builds by
hand, one after the other, that share nothing. One is done, and counted nine times: configure and make for the
userland and for the modules of one kernel, as OpenZFS's own documentation has it. The libraries that Debian
has not for ppc64 are made once, and counted for each of its three.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
from tabulate import tabulate

from quizmatrix.build.zfs import sysroot
from quizmatrix.core import paths, process
from quizmatrix.core.jobserver import JobServer
from quizmatrix.kernel import source
from quizmatrix.model.arch import load_arch
from tests import linkedcache
from tests.bench import QUIZMATRIX, cpu_of, row, timed
from tests.openzfs import source_tree

USERS_CACHE = paths.cache_dir()
KERNEL = "debian-source:6.1"
EDITED = "module/zfs/arc.c"
CELL = "6.1-x86_64"


def linked_cache(scratch: Path, name: str) -> None:
    """Use a separate cache for the benchmark: the user's, without OpenZFS builds."""
    ccache = scratch / f"{name}-ccache"
    ccache.mkdir()
    linkedcache.link(USERS_CACHE, scratch / name, without=("zfs", "sysroots", "build-layers"))
    os.environ["CCACHE_DIR"] = str(ccache)


def libraries_of(arch: str) -> tuple[sysroot.Sysroot, float]:
    """The sysroot of an architecture, and the CPU seconds for making it."""
    pool = JobServer(process.usable_cpus())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = anyio.run(sysroot.obtain, load_arch(arch), None, pool, lambda said: print(f"  {said}"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    pool.close()
    return made, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def by_hand(tree: Path, scratch: Path) -> float:
    """CPU seconds of one build for this host that shares nothing; its libraries exist."""
    kernel = source.find(KERNEL, load_arch("x86_64"))
    if kernel is None or kernel.build_tree is None:
        raise SystemExit(f"{KERNEL} is not built")
    folder = scratch / "by-hand"
    folder.mkdir()
    objects = kernel.build_tree
    configure = [str(tree / "configure"), f"--with-linux={objects.source}"]
    configure.append(f"--with-linux-obj={objects.folder}")
    environment = dict(os.environ)
    os.environ.update(libraries_of("x86_64")[0].environment)
    total = 0.0
    here = Path.cwd()
    os.chdir(folder)
    try:
        make = ["make", f"-j{process.usable_cpus()}"]
        for step in (configure, make, ["make", f"DESTDIR={scratch}", "install"]):
            total += cpu_of(step)[1]
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
    return total


def from_nothing(tree: Path, scratch: Path) -> list[str]:
    """One row: nine cells at once, compared with nine builds by hand. Later rows use these nine cells."""
    linked_cache(scratch, "by-hand-cache")
    # Debian's architectures have packages; by hand, each of the three ppc64 builds has to make the libraries.
    libraries = libraries_of("ppc64")[1]
    one = by_hand(tree, scratch)
    hand = 9 * one + 3 * libraries
    print(f"by hand: {one:.0f} s, and for ppc64 {libraries:.0f} s of its libraries", flush=True)
    linked_cache(scratch, "cache")
    own = cpu_of([*QUIZMATRIX, "zfs", "build", "built", "--source", str(tree), "-q"])[1]
    return row(
        "CPU of `zfs build built` from nothing",
        f"{own:.0f} s",
        f"nine by hand {hand:.0f} s",
        f"{own / hand:.2f} times",
        "at most 0.6 times",
        own <= 0.6 * hand,
    )


def build(tree: Path, *argv: str) -> float:
    """Seconds of `zfs build`."""
    argv = (*QUIZMATRIX, "zfs", "build", "--source", str(tree), "-q", *argv)
    return timed(lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL))


def nothing_changed(tree: Path) -> list[str]:
    """One row: to find that there is nothing to do."""
    seconds = min(build(tree, "built") for _ in range(3))
    return row("`zfs build built`, nothing changed", f"{seconds:.2f} s", "-", "-", "under 2 s", seconds < 2)


def one_file(tree: Path, *argv: str) -> list[str]:
    """One row: a file of the module was edited."""
    path = tree / EDITED
    text = path.read_bytes()
    path.write_bytes(text + b"\n/* edited */\n")
    try:
        own = build(tree, "built", *argv)
    finally:
        # With a new mtime, so that make sees the change.
        path.write_bytes(text)
    cells = 1 if argv else 9
    return row(
        f"the same after an edit of {EDITED}, {cells} cells",
        f"{own:.1f} s",
        "-",
        f"{own / cells:.1f} s a cell",
        "under 20 s a cell",
        own / cells < 20,
    )


def handoff(tree: Path) -> list[str]:
    """One row: three architectures hand each other disks with two features each."""
    build(tree, "handoff")
    argv = [*QUIZMATRIX, "run", "handoff", "--env", "HANDOFF_FEATURES=lz4 encryption", "-q"]
    seconds = timed(lambda: subprocess.run(argv, check=True))
    return row("`run handoff`, two features", f"{seconds:.0f} s", "-", "-", "under 360 s", seconds < 360)


def main() -> int:
    """Measure everything."""
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as name:
        scratch = Path(name)
        os.environ["QUIZMATRIX_STATE_DIR"] = str(scratch / "state")
        (scratch / "source").mkdir()
        tree = source_tree(scratch / "source")
        rows = [from_nothing(tree, scratch), nothing_changed(tree)]
        rows += [one_file(tree, "--only", CELL), one_file(tree), handoff(tree)]
    print()
    print(tabulate(rows, headers=["what", "quizmatrix", "rival", "difference", "target", ""]))
    return int(any(line[-1] == "MISSED" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
