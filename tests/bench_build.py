"""Measures how long a kernel build takes, against other tools: `make bench-build`, about fifteen minutes.

Both from the same source, on all CPUs, with nothing compiled before and without a compiler cache:
quizmatrix's kernel, and `defconfig` with `kvm_guest.config`. The CPU's seconds say the same on a host that is
not idle.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from quizmatrix.core import paths, process
from quizmatrix.kernel import debiansource
from quizmatrix.kernel.build import build
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch

TARGET = 1 / 3


def cpu() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def built_here(version: str, arch: str, scratch: Path) -> tuple[float, float, Path]:
    """Seconds that quizmatrix takes, configuring and storing included: wall and CPU; the source's folder."""

    def tell(said: str) -> None:
        print(f"  {said}", flush=True)

    tree = await debiansource.source_tree(version, tell)
    os.environ["QUIZMATRIX_CACHE_DIR"] = str(scratch / "cache")
    os.environ["CCACHE_DISABLE"] = "1"
    began, cpu_before = time.monotonic(), cpu()
    await build(tree, Order(arch=load_arch(arch), tell=tell))
    return time.monotonic() - began, cpu() - cpu_before, tree.path


def built_by_peers(source: Path, arch: str, scratch: Path) -> tuple[float, float]:
    """The same for `defconfig` with `kvm_guest.config`, the image and the modules."""
    folder = scratch / "defconfig"
    folder.mkdir()
    make = ["make", "-C", str(source), f"O={folder}", f"ARCH={load_arch(arch).facts.build.make_arch}"]
    began, cpu_before = time.monotonic(), cpu()
    for words in (["defconfig"], ["kvm_guest.config"], [f"-j{process.usable_cpus()}", "vmlinux", "modules"]):
        subprocess.run([*make, *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began, cpu() - cpu_before


def main() -> int:
    """Measure both; 1 where the target is missed."""
    paths.cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as name:
        own, own_cpu, source = anyio.run(built_here, "6.1", "x86_64", Path(name))
        other, other_cpu = built_by_peers(source, "x86_64", Path(name))
    for kind, one, peer in (("wall", own, other), ("CPU", own_cpu, other_cpu)):
        print(
            f"6.1 for x86_64, {kind}: {one:.0f} s, defconfig and kvm_guest.config {peer:.0f} s: "
            f"{one / peer:.2f} times"
        )
    return int(own / other > TARGET)


if __name__ == "__main__":
    sys.exit(main())
