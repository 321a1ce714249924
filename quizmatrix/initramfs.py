"""The initramfs of a kernel: guest scripts, base image and boot modules, joined once and cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

from quizmatrix import cpio, paths
from quizmatrix.errors import host_error
from quizmatrix.image import Image
from quizmatrix.kernel.artifact import BOOT_MODULES, Kernel

_SCRIPTS = ("init2", "agent")
_FOLDERS = ("dev", "proc", "sys", "root")


def assemble(kernel: Kernel, image: Image) -> Path:
    """The initramfs for this kernel and base image; HostError where it cannot be written.

    The name is that of the content, so a changed guest script is in the next run.
    """
    guest = _guest_archive()
    made = [kernel.record.files[BOOT_MODULES].sha256, image.key, hashlib.sha256(guest).hexdigest()]
    key = hashlib.sha256("\n".join(made).encode()).hexdigest()[:24]
    path = paths.cache_dir() / "initramfs" / f"{key}.cpio"
    size = kernel.boot_modules.stat().st_size + image.archive.stat().st_size + len(guest)
    try:
        # Nothing is joined that is there already; one cut short by a full disk is not whole.
        if path.is_file() and path.stat().st_size == size + len(cpio.join([])):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [image.archive.read_bytes(), kernel.boot_modules.read_bytes(), guest]
        paths.write_atomic(path, cpio.join(parts))
    except OSError as error:
        raise host_error("write the initramfs", error) from error
    return path


def _guest_archive() -> bytes:
    """What comes from guest/: init1 as /init, the rest in /guest, which the image's part makes."""
    folder = paths.data_dir("guest")
    parts = [cpio.directory(name) for name in _FOLDERS]
    # Without a console node some kernels give init no output at all.
    parts.append(cpio.char_device("dev/console", 5, 1))
    parts.append(cpio.file("init", (folder / "init1").read_bytes(), 0o755))
    parts += [cpio.file(f"guest/{name}", (folder / name).read_bytes()) for name in _SCRIPTS]
    return b"".join(parts)
