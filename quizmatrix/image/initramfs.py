"""Makes a kernel's initramfs from guest scripts, base image and boot modules, once, and caches it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from quizmatrix.core import cpio, paths, skeleton
from quizmatrix.core.checksum import Checksum, checksum_of
from quizmatrix.core.errors import DamagedError, host_error
from quizmatrix.core.store import Store, key_of
from quizmatrix.image.artifact import Image
from quizmatrix.kernel import drivers, modules
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.arch import Arch

_INITRAMFS = Store(what="initramfs", folder="initramfs", place="{}.cpio", record="{}.json")

_SCRIPTS = ("fstab", "init2")
# Without a C library; see guest/programs.
_PROGRAMS = ("join", "agent")
_FOLDERS = ("dev", "proc", "sys", "root")


def assemble(kernel: Kernel, image: Image, arch: Arch) -> Path:
    """The initramfs for this kernel and base image. Raises HostError where it cannot be written.

    Its name is a hash of all its content, so that the next run has a changed guest script.
    """
    guest = _guest_archive(arch) + skeleton.layer() + _nodes_of(kernel)
    wanted = list(arch.facts.kernel.modules)
    if not kernel.has_9p:
        # Such a guest gets its layers as disks (see run/layerdisks.py).
        wanted = [name for name in wanted if name not in drivers.NINE_P]
        wanted += [*kernel.disk_drivers, "squashfs"]
        guest += cpio.file("guest/no-9p", b"")
    if image.disk is not None:
        wanted += [*kernel.disk_drivers, image.disk_type]
        guest += cpio.file("guest/base-disk", f"{image.disk_type}\n".encode())
    made = [kernel.record.key, image.key, hashlib.sha256(guest).hexdigest(), *wanted]
    key = key_of(made, 24)
    path = _INITRAMFS.path(key)
    if _is_whole(key):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        boot_modules = modules.boot_archive(kernel.modules, wanted)
        paths.write_atomic(path, cpio.join([image.archive.read_bytes(), boot_modules, guest]))
        paths.write_atomic(_INITRAMFS.record_of(key), msgspec.json.encode(checksum_of(path)))
    except OSError as error:
        raise host_error("write the initramfs", error) from error
    return path


def _nodes_of(kernel: Kernel) -> bytes:
    devname = kernel.modules / "modules.devname"
    return skeleton.nodes(devname.read_text(encoding="utf-8")) if devname.is_file() else b""


def _is_whole(key: str) -> bool:
    try:
        checksum = _INITRAMFS.read(key, Checksum)
    except DamagedError:
        return False
    return checksum is not None and checksum.matches(_INITRAMFS.path(key))


def _guest_archive(arch: Arch) -> bytes:
    """A cpio archive with the files of guest/: init1 as /init, the others in /guest.

    The folder /guest itself is in the image's archive.
    """
    folder = paths.data_dir("guest")
    parts = [cpio.directory(name) for name in _FOLDERS]
    # Without a console node some kernels give init no output at all.
    parts.append(cpio.char_device("dev/console", 5, 1))
    parts.append(cpio.file("init", (folder / "init1").read_bytes(), 0o755))
    parts += [cpio.file(f"guest/{name}", (folder / name).read_bytes()) for name in _SCRIPTS]
    parts += [
        cpio.file(f"guest/{name}", (folder / f"programs/{name}.{arch.name}").read_bytes(), 0o755)
        for name in _PROGRAMS
    ]
    return b"".join(parts)
