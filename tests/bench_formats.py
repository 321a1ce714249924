"""Compares file systems for base images: `make bench-formats`, about ten minutes.

The packages of x86_64's Debian image as squashfs, erofs and ext4, under Debian's kernel, which has
all three: the image's size, a boot, and the reading of every file below /usr in a guest.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio
import msgspec
from tabulate import tabulate

from quizmatrix.core import paths
from quizmatrix.image import initramfs
from quizmatrix.model import cells
from quizmatrix.model.arch import load_arch
from quizmatrix.model.matrix import Limits
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared, specify
from quizmatrix.run.cell import run_cell

CELL = "6.1-x86_64"
ROUNDS = 5
READ_ALL = "find /usr -xdev -type f -print0 | xargs -0 cat >/dev/null"

# Name -> the file system's type, and what makes it of a folder.
FORMATS = {
    "squashfs, zstd": ("squashfs", "mksquashfs {tree} {disk} -quiet -no-progress -comp zstd"),
    "squashfs, lz4": ("squashfs", "mksquashfs {tree} {disk} -quiet -no-progress -comp lz4 -Xhc"),
    "squashfs, gzip": ("squashfs", "mksquashfs {tree} {disk} -quiet -no-progress -comp gzip"),
    "erofs, lz4hc": ("erofs", "mkfs.erofs --quiet -zlz4hc {disk} {tree}"),
    "erofs, not compressed": ("erofs", "mkfs.erofs --quiet {disk} {tree}"),
    "ext4": ("ext4", "mkfs.ext4 -q -O ^has_journal -d {tree} {disk} 1G"),
}


class Bench:
    """One cell, with different base images."""

    def __init__(self, top: Path) -> None:
        """top: a folder for everything that is made."""
        self._top = top
        self._number = 0
        (self.cell,) = cells.cells_on_the_spot([CELL], Limits())
        self.cell = msgspec.structs.replace(self.cell, image="debian", memory=2048)
        arch = load_arch(self.cell.arch)
        # Modules that erofs and ext4 load, but that modules.dep does not list.
        modules = [*arch.facts.kernel.modules, "crc32c_generic"]
        kernel = msgspec.structs.replace(arch.facts.kernel, modules=modules)
        self._arch = msgspec.structs.replace(arch, facts=msgspec.structs.replace(arch.facts, kernel=kernel))
        self._preparer = Preparer(Policy())
        self.prepared = anyio.run(self._preparer.prepare, self.cell, print)

    def with_disk(self, disk: Path, disk_type: str) -> Prepared:
        """The cell's artifacts, with this disk as the base image."""
        image = msgspec.structs.replace(self.prepared.image, disk=disk, disk_type=disk_type)
        return msgspec.structs.replace(
            self.prepared,
            image=image,
            initramfs=initramfs.assemble(self.prepared.kernel, image, self._arch),
        )

    def seconds(self, prepared: Prepared, command: str) -> tuple[float, float]:
        """The seconds of a guest until its command began, and those of the command."""
        self._number += 1
        folder = self._top / f"run{self._number}"
        folder.mkdir()
        answer = anyio.run(self._preparer.accelerator, self.cell, prepared, None)
        (task,) = in_each([self.cell], [command])
        made = anyio.run(partial(specify, task, prepared, answer.accelerator, folder=folder))
        result = anyio.run(run_cell, made)
        timings = result.timings
        if (
            result.exit_code != 0
            or timings.boot is None
            or timings.profiles is None
            or timings.command is None
        ):
            said = (folder / "console.log").read_text(errors="replace")[-800:]
            raise SystemExit(f"{made.files.disks}\n{said}\n{result.outcome}: {result.detail}")
        return timings.boot + timings.profiles, timings.command


def main() -> int:
    """Make the images, measure them in turns, print the table."""
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as name:
        top = Path(name)
        bench = Bench(top)
        tree = top / "tree"
        subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, str(bench.prepared.image.disk)], check=True)
        images = {}
        for format_name, (disk_type, command) in FORMATS.items():
            disk = top / format_name.replace(", ", "-").replace(" ", "-")
            subprocess.run(
                command.format(tree=tree, disk=disk).split(), check=True, stdout=subprocess.DEVNULL
            )
            images[format_name] = bench.with_disk(disk, disk_type)
        boots: dict[str, list[float]] = {name: [] for name in images}
        reads: dict[str, list[float]] = {name: [] for name in images}
        for turn in range(ROUNDS):
            for format_name, prepared in images.items():
                boots[format_name].append(bench.seconds(prepared, "true")[0])
                if turn < 2:
                    reads[format_name].append(bench.seconds(prepared, READ_ALL)[1])
        rows = [
            [
                format_name,
                f"{size_on_disk(prepared.image.disk) / 1e6:.0f} MB",
                f"{statistics.median(boots[format_name]):.2f} s",
                f"{min(reads[format_name]):.1f} s",
            ]
            for format_name, prepared in images.items()
        ]
    print(tabulate(rows, headers=["file system", "size", "start to command", "all of /usr read"]))
    return 0


def size_on_disk(path: Path | None) -> int:
    """Bytes; ext4's image has holes."""
    return path.stat().st_blocks * 512 if path else 0


if __name__ == "__main__":
    sys.exit(main())
