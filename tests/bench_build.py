"""How long a kernel takes to build against what its peers build: `make bench-build`, about an hour.

Both from the same source, on all CPUs, with nothing compiled before: quizmatrix's kernel, with an
empty ccache where that is installed, and `defconfig` with `kvm_guest.config`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from quizmatrix import paths, process
from quizmatrix.arch import load_arch
from quizmatrix.kernel import debiansource
from quizmatrix.kernel.build import Order, build

TARGET = 1 / 3


async def built_here(version: str, arch: str, scratch: Path) -> tuple[float, Path]:
    """Seconds that quizmatrix takes, configuring and storing included, and the source's folder."""

    def tell(said: str) -> None:
        print(f"  {said}", flush=True)

    tree = await debiansource.source_tree(version, tell)
    os.environ["QUIZMATRIX_CACHE_DIR"] = str(scratch / "cache")
    os.environ["CCACHE_DIR"] = str(scratch / "ccache")
    began = time.monotonic()
    await build(tree, Order(arch=load_arch(arch), tell=tell))
    return time.monotonic() - began, tree.path


def built_by_peers(source: Path, arch: str, scratch: Path) -> float:
    """Seconds for `defconfig` with `kvm_guest.config`, the image and the modules."""
    folder = scratch / "defconfig"
    folder.mkdir()
    make = ["make", "-C", str(source), f"O={folder}", f"ARCH={load_arch(arch).facts.build.make_arch}"]
    began = time.monotonic()
    for words in (["defconfig"], ["kvm_guest.config"], [f"-j{process.usable_cpus()}", "vmlinux", "modules"]):
        subprocess.run([*make, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> int:
    """Measure both; 1 where the target is missed."""
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as name:
        own, source = anyio.run(built_here, "6.1", "x86_64", Path(name))
        other = built_by_peers(source, "x86_64", Path(name))
    print(
        f"6.1 for x86_64: {own:.0f} s, defconfig and kvm_guest.config {other:.0f} s: {own / other:.2f} times"
    )
    return int(own / other > TARGET)


if __name__ == "__main__":
    sys.exit(main())
