"""What OpenZFS costs: `make bench-zfs`, some forty minutes where the kernels are built.

From nothing: the CPU's seconds of `zfs build endian`, its nine kernels being there, against nine builds by
hand, one after the other, that share nothing. One is done, and counted nine times: configure and make for the
userland and for the modules of one kernel, as OpenZFS's own documentation has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
from tabulate import tabulate

from quizmatrix import paths, process
from quizmatrix.arch import load_arch
from quizmatrix.jobserver import JobServer
from quizmatrix.kernel import source
from quizmatrix.zfs import sysroot
from tests.bench import QUIZMATRIX, cpu_of, row, timed
from tests.openzfs import source_tree

KERNEL = "debian-source:6.1"
EDITED = "module/zfs/arc.c"
CELL = "6.1-x86_64"


def by_hand(tree: Path, scratch: Path) -> float:
    """CPU seconds of one build that shares nothing, for this host's architecture."""
    kernel = source.find(KERNEL, load_arch("x86_64"))
    if kernel is None or kernel.build_tree is None:
        raise SystemExit(f"{KERNEL} is not built")
    folder = scratch / "by-hand"
    folder.mkdir()
    objects = kernel.build_tree
    configure = [str(tree / "configure"), f"--with-linux={(objects / 'source').resolve()}"]
    configure.append(f"--with-linux-obj={objects}")
    # Its libraries, as Debian's packages of them would be on this host.
    pool = JobServer(process.usable_cpus())
    libraries = anyio.run(sysroot.obtain, load_arch("x86_64"), None, pool, lambda said: print(f"  {said}"))
    pool.close()
    os.environ.update(libraries.environment)
    total = 0.0
    for step in (
        configure,
        ["make", f"-j{process.usable_cpus()}"],
        ["make", f"DESTDIR={scratch}", "install"],
    ):
        here = Path.cwd()
        os.chdir(folder)
        try:
            total += cpu_of(step)[1]
        finally:
            os.chdir(here)
    return total


def from_nothing(tree: Path, scratch: Path) -> list[str]:
    """One row: nine cells at once, against nine builds by hand. All that follows has these nine."""
    cache, ccache = scratch / "cache", scratch / "ccache"
    cache.mkdir()
    ccache.mkdir()
    # Everything but what is built of OpenZFS is the user's own cache.
    for path in paths.cache_dir().iterdir():
        if path.name not in ("zfs", "sysroots", "build-layers") and not scratch.is_relative_to(path):
            (cache / path.name).symlink_to(path)
    os.environ.update({"QUIZMATRIX_CACHE_DIR": str(cache), "CCACHE_DIR": str(ccache)})
    own = cpu_of([*QUIZMATRIX, "zfs", "build", "endian", "--source", str(tree), "-q"])[1]
    hand = 9 * by_hand(tree, scratch)
    return row(
        "CPU of `zfs build endian` from nothing",
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
    seconds = min(build(tree, "endian") for _ in range(3))
    return row("`zfs build endian`, nothing changed", f"{seconds:.2f} s", "-", "-", "under 2 s", seconds < 2)


def one_file(tree: Path, *argv: str) -> list[str]:
    """One row: a file of the module was edited."""
    path = tree / EDITED
    text = path.read_bytes()
    path.write_bytes(text + b"\n/* edited */\n")
    try:
        own = build(tree, "endian", *argv)
    finally:
        # With a new time, or make would not see it.
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


def handoff() -> list[str]:
    """One row: three architectures hand each other disks with two features each."""
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
        rows += [one_file(tree, "--only", CELL), one_file(tree), handoff()]
    print()
    print(tabulate(rows, headers=["what", "quizmatrix", "rival", "difference", "target", ""]))
    return int(any(line[-1] == "MISSED" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
