"""Debug information of Debian's ready-made kernels: the vmlinux of linux-image-RELEASE-dbg.

The packages have 400 to 900 MB, unpacked up to 6 GB, so they are fetched only when they are asked for, and
vmlinux alone is kept.
"""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import elf, paths
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import DamagedError, UnpreparedError
from quizmatrix.core.process import require_program
from quizmatrix.kernel import debianbeside
from quizmatrix.kernel.artifact import BUILD_STAMP, DEBUG_INFO, VMLINUX, Kernel
from quizmatrix.kernel.order import Order

# Where the package has it.
_IN_PACKAGE = "./usr/lib/debug/boot/vmlinux-{release}"

# One file of a package, without the gigabytes of the others. $1: the package. $2: the file. $3: where to.
_UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar -x -f - -O "$2" >"$3"'


def is_of_debian(kernel: Kernel) -> bool:
    """Whether a kernel is one of Debian's packages, which have debug information beside them."""
    return kernel.record.build is None and bool(debianbeside.version_of(kernel))


async def obtain(kernel: Kernel, order: Order) -> Path:
    """The vmlinux with debug information of a stored kernel of Debian's, fetched where the cache lacks it.

    Raises NotInArchiveError where no suite has it any more, UnpreparedError where it cannot be fetched, or
    the kernel is none of Debian's packages.
    """
    if not is_of_debian(kernel):
        raise UnpreparedError(
            f"there is no debug information of the kernel {kernel.record.key} to fetch",
            cause="it is built here" if kernel.record.build else "it is none of Debian's packages",
            next_step="A kernel of the variant `debug` has it: debian-source:6.1-x86_64+debug",
        )
    key, release, tell = kernel.record.key, kernel.record.release, order.tell

    async def make(folder: Path) -> None:
        async with order.fetching:
            root, package = await debianbeside.find(kernel, f"linux-image-{release}-dbg", order)
            with paths.scratch(folder.parent, "package") as name:
                tell(f"fetching {package.name} ({package.size // 1_000_000} MB)")
                (archive,) = await root.download([package], Path(name))
                tell(f"unpacking {package.name}")
                require_program("dpkg-deb", "dpkg")
                step = BuildStep(fact=f"could not unpack {archive.name}")
                file = _IN_PACKAGE.format(release=release)
                await step.run(["sh", "-c", _UNPACK, "sh", str(archive), file, str(folder / VMLINUX)])
        if elf.machine_of(folder / VMLINUX) is None:
            raise DamagedError(f"{package.name} has an unknown layout", cause=f"{file} is no ELF file")
        (folder / BUILD_STAMP).write_text(key)

    stored = await DEBUG_INFO.get_or_make(
        key,
        make,
        action=f"store the debug information of {release}",
        waiting=lambda: tell("waiting for another quizmatrix that fetches the debug information"),
    )
    return stored / VMLINUX
