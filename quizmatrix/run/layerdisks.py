"""Layers as disks, for guests whose kernel has no 9p: read-only images, and one disk for /shared.

Debian's cloud kernels have no 9p. The guest sees the same folders at the same places. The files in its
/shared come back as a tar archive when the command has ended; a guest that dies before that returns none.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import paths, process, squashfs
from quizmatrix.core.errors import HostError, UnpreparedError, host_error
from quizmatrix.model.spec import CellSpec, Disk, Share
from quizmatrix.run.cellfolder import artifacts_of, host_folder_of

# The program that makes the images, and its Debian package.
_MKSQUASHFS = ("mksquashfs", "squashfs-tools")

# The tag of the layer whose image is kept: a kernel's modules are the same for every run.
_KEPT_LAYER = "kernel"

# The ustar header (POSIX): its size, and the offset of its magic, in bytes.
_TAR_BLOCK = 512
_TAR_MAGIC_AT = 257

# Seconds for unpacking the archive of /shared.
_UNPACKING_LIMIT = 120.0

# The serial number by which init1 finds the disk for the files of /shared.
SHARED = "shared"


class TooLargeError(Exception):
    """The files of /shared exceed their limit; the message says so."""


async def convert(spec: CellSpec, shares: list[Share]) -> CellSpec:
    """`spec` with a disk in place of each share.

    Raises UnpreparedError for a writable share, HostError if an image cannot be made.
    """
    folder = host_folder_of(Path(spec.files.folder)) / "layers"
    for share in shares:
        if share.writable and share.tag != SHARED:
            bound = {f"bind{number}": bind.path for number, bind in enumerate(spec.files.binds)}
            raise UnpreparedError(
                f"{bound.get(share.tag, share.path)} cannot be bound for writing",
                cause=f"the kernel {spec.labels.release} has no 9p",
                next_step="Bind it read-only (`:ro`), or take a kernel with 9p.",
            )
    disks = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for share in shares:
            if share.tag == SHARED:
                path = _sparse_file(folder / SHARED, spec.machine.memory)
                disks.append(Disk(serial=SHARED, path=str(path)))
            elif share.tag == _KEPT_LAYER:
                disks.append(await _kernel_disk(spec, share))
            else:
                disks.append(await _disk(share, folder / f"{share.tag}.squashfs"))
    except OSError as error:
        raise host_error(f"make the layers of {spec.labels.cell}", error) from error
    disks = [msgspec.structs.replace(disk, bus=spec.machine.kernel.layer_bus) for disk in disks]
    files = msgspec.structs.replace(spec.files, disks=[*spec.files.disks, *disks])
    return msgspec.structs.replace(spec, files=files)


def _sparse_file(path: Path, memory: int) -> Path:
    """The disk for /shared. memory: of the guest, in MiB; /shared is a tmpfs, so it cannot be larger."""
    with path.open("wb") as file:
        file.truncate((memory + 64) << 20)
    return path


async def _kernel_disk(spec: CellSpec, share: Share) -> Disk:
    # The image is in the kernel's folder, so it is removed together with the kernel.
    image = Path(share.path).with_name("layer.squashfs")
    if not image.exists():
        async with paths.locked(paths.lock_file(f"layer-{spec.machine.kernel.key}")):
            if not image.exists():
                made = image.with_name(f".{image.name}.new")
                made.unlink(missing_ok=True)
                await _disk(share, made)
                made.rename(image)
    return Disk(serial=share.tag, path=str(image), writable=False)


async def _disk(share: Share, image: Path) -> Disk:
    """Make an uncompressed image: it is written once and read once, and emulated guests decompress slowly."""
    folder = Path(share.path).resolve()
    argv = [process.require_program(*_MKSQUASHFS), str(folder), str(image)]
    argv += ["-quiet", "-no-progress", "-exit-on-error", "-noI", "-noD", "-noF", "-noX", "-noappend"]
    argv += squashfs.limits()
    # Leave out folders that change while they are read; they include the images of other cells.
    ours = [path.resolve() for path in (paths.cache_dir(), paths.state_dir(), image.parents[3])]
    inside = [str(path) for path in ours if path != folder and path.is_relative_to(folder)]
    done = await process.run([*argv, *(["-e", *inside] if inside else [])])
    if done.status != 0:
        raise HostError(
            f"cannot make a block image of {share.path}",
            cause=done.last_words,
            next_step="A kernel with 9p needs none; --no-work-tree leaves out the current folder.",
        )
    return Disk(serial=share.tag, path=str(image), writable=False)


async def take_shared(folder: Path, limit: int) -> str | None:
    """Unpack the archive of /shared into a cell's artifacts. The guest may be hostile.

    folder: of the cell. limit: bytes. Returns an error message or None; raises TooLargeError.
    """
    disk = host_folder_of(folder) / "layers" / SHARED
    # A guest that did not get that far has written nothing.
    if not disk.exists() or disk.stat().st_blocks == 0:
        return None
    if (taken := disk.stat().st_blocks * 512) > limit:
        raise TooLargeError(
            f"/shared grew to {taken >> 20} MiB; its limit is {limit >> 20} MiB, so none of it is kept"
        )
    with disk.open("rb") as file:
        header = file.read(_TAR_BLOCK)
    # tar(1) would also unpack a compressed archive, which may contain files of any size.
    if header[_TAR_MAGIC_AT:].partition(b"\0")[0].rstrip() != b"ustar":
        return "the guest returned no valid archive of /shared"
    # tar leaves out absolute names and `..`; untrusted.make_safe handles the rest.
    argv = ["tar", "-xf", str(disk), "-C", str(artifacts_of(folder)), "--no-same-owner"]
    with anyio.move_on_after(_UNPACKING_LIMIT):
        done = await process.run([*argv, "--delay-directory-restore"])
        return None if done.status == 0 else f"not all of /shared could be unpacked: {done.last_words}"
    return f"/shared was not unpacked within {_UNPACKING_LIMIT:g} s"
