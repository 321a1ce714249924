"""Layers for guests whose kernel has no 9p: read-only block images, and a disk for what comes back.

Debian's cloud flavours are such kernels. A guest sees the same folders at the same places; what it
leaves in /shared comes back as a tar archive when the command has ended, so that of a guest that dies
nothing does.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix import paths, process
from quizmatrix import spec as specs
from quizmatrix.errors import HostError, UnpreparedError, host_error
from quizmatrix.spec import CellSpec, Disk, Share

# What makes the images, with Debian's package of it.
_MAKER = ("mksquashfs", "squashfs-tools")

# The kernel's modules are the same for every run.
_LASTING = "kernel"

# init1 finds by this serial number the disk that /shared comes back on.
SHARED = "shared"


async def convert(spec: CellSpec, shares: list[Share]) -> CellSpec:
    """`spec` with a disk in place of each share of its guest.

    Raises UnpreparedError for a share that is to be written to, HostError where the images cannot be made.
    """
    folder = specs.host_folder_of(Path(spec.folder)) / "layers"
    disks = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for share in shares:
            if share.tag == SHARED:
                disks.append(Disk(serial=SHARED, path=str(_sparse_file(folder / SHARED, spec.memory))))
            elif share.writable:
                raise UnpreparedError(
                    f"{share.path} cannot be bound for writing",
                    cause=f"the kernel {spec.release} has no 9p",
                    next_step="Bind it read-only (`:ro`), or take a kernel with 9p.",
                )
            elif share.tag == _LASTING:
                disks.append(await _kernel_disk(spec, share))
            else:
                disks.append(await _disk(share, folder / f"{share.tag}.squashfs"))
    except OSError as error:
        raise host_error(f"make the layers of {spec.cell}", error) from error
    return msgspec.structs.replace(spec, disks=[*spec.disks, *disks])


def _sparse_file(path: Path, memory: int) -> Path:
    """/shared is in the guest's memory, MiB, and no larger than that."""
    with path.open("wb") as file:
        file.truncate((memory + 64) << 20)
    return path


def _kernel_image(key: str) -> Path:
    return paths.cache_dir() / "layers" / f"{key}.squashfs"


def remove(key: str) -> None:
    """Forget the image of a kernel's modules."""
    _kernel_image(key).unlink(missing_ok=True)


async def _kernel_disk(spec: CellSpec, share: Share) -> Disk:
    image = _kernel_image(spec.kernel_key)
    if not image.exists():
        async with paths.locked(paths.cache_dir() / "locks" / f"layer-{spec.kernel_key}.lock", lambda: None):
            if not image.exists():
                image.parent.mkdir(parents=True, exist_ok=True)
                made = image.with_name(f".{image.name}.new")
                made.unlink(missing_ok=True)
                await _disk(share, made)
                made.rename(image)
    return Disk(serial=share.tag, path=str(image), writable=False)


async def _disk(share: Share, image: Path) -> Disk:
    """Not compressed: it is made once and read once, and emulated guests are slow at unpacking."""
    argv = [process.require_program(*_MAKER), share.path, str(image)]
    done = await process.run([*argv, "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX", "-noappend"])
    if done.status != 0:
        raise HostError(f"cannot make a block image of {share.path}", cause=done.last_words)
    return Disk(serial=share.tag, path=str(image), writable=False)


def take_shared(folder: Path) -> str | None:
    """Unpack what came back on the disk into the artifacts of the cell in `folder`.

    Returns what went wrong, or None.
    """
    disk = specs.host_folder_of(folder) / "layers" / SHARED
    # A guest that came to nothing has written nothing.
    if not disk.exists() or disk.stat().st_blocks == 0:
        return None
    # tar(1) leaves out absolute names and `..`; the rest is make_artifacts_safe's.
    done = process.ask(
        [
            "tar",
            "-xf",
            str(disk),
            "-C",
            str(specs.artifacts_of(folder)),
            "--no-same-owner",
            "--delay-directory-restore",
        ]
    )
    return None if done.status == 0 else f"not all of /shared could be unpacked: {done.last_words}"
