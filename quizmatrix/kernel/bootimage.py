"""Reads boot images: the kernel in an x86 bzImage, in an EFI zboot image, or in a compressed file."""

from __future__ import annotations

import re
import struct

from quizmatrix.core import elf
from quizmatrix.core.decompress import decompress, is_compressed
from quizmatrix.core.errors import DamagedError

_ELF = b"\x7fELF"

# How deep compressed files may lie in each other: a zboot image in a compressed file, and the kernel in it.
_DEPTH = 3

# The release in the kernel's first message (init/version.c), and in the decompressor of s390.
_BANNER = re.compile(rb"Linux version (\S{1,200}) \(")

# The type of the ELF note that names an x86 kernel's entry for PVH (XEN_ELFNOTE_PHYS32_ENTRY in Xen's
# elfnote.h).
_PVH_NOTE = 18

# Bytes of a segment of notes that are read; a kernel's has some hundred.
_NOTES = 1 << 16

# Bytes with all headers of an ELF kernel's segments.
_HEAD = 8192


def boot_file(image: bytes, *, wants_vmlinux: bool) -> bytes:
    """The file for QEMU's -kernel, from an image as distributions ship it.

    wants_vmlinux: the ELF kernel of an x86 boot image; where it has no entry for PVH, the boot image.
    Raises DamagedError where the image is damaged, or no kernel.
    """
    for _ in range(_DEPTH):
        if image[4:8] == b"zimg" and image.startswith(b"MZ") and len(image) >= 16:
            # EFI zboot (the kernel's drivers/firmware/efi/libstub/zboot-header.S).
            start, size = struct.unpack_from("<II", image, 8)
            image = image[start : start + size]
        if not is_compressed(image):
            break
        image = _unpacked(image)
    if not image:
        raise DamagedError("the kernel image is damaged", cause="it is empty")
    if not wants_vmlinux:
        return image
    kernel = vmlinux(image)
    return kernel if kernel is image or has_pvh_entry(kernel) else image


def vmlinux(image: bytes) -> bytes:
    """The uncompressed ELF kernel in a bzImage, which QEMU enters through its PVH note.

    An `image` that is an ELF file already is returned unchanged. Since boot protocol 2.08 the setup header
    has the position of the payload (kernel document arch/x86/boot.rst: setup_sects, payload_offset,
    payload_length). Raises DamagedError where `image` is neither, or its payload is no ELF file.
    """
    if image.startswith(_ELF):
        return image
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise DamagedError("the kernel image is not an x86 boot image", cause="no HdrS header")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    kernel = _unpacked(payload) if is_compressed(payload) else payload
    if not kernel.startswith(_ELF):
        raise DamagedError(
            "the kernel image could not be unpacked", cause=f"its payload begins {payload[:6]!r}"
        )
    return kernel


def _unpacked(data: bytes) -> bytes:
    try:
        return decompress(data)
    except ValueError as error:
        raise DamagedError("the kernel image is damaged", cause=str(error)) from error


def has_pvh_entry(kernel: bytes) -> bool:
    """Whether QEMU can enter an uncompressed x86 kernel."""
    for kind, offset, size in elf.segments(kernel[:_HEAD]):
        at, end = offset, offset + min(size, _NOTES)
        # A note: the lengths of its name and of its content, its type, and both, padded to four bytes.
        while kind == "PT_NOTE" and at + 12 <= min(end, len(kernel)):
            name, content, number = struct.unpack_from("<III", kernel, at)
            if number == _PVH_NOTE and kernel[at + 12 : at + 16] == b"Xen\0":
                return True
            at += 12 + (name + 3) // 4 * 4 + (content + 3) // 4 * 4
    return False


def release_of(image: bytes) -> str | None:
    """The release of the kernel in an image; None where the image does not say it."""
    if image[0x202:0x206] == b"HdrS" and len(image) >= 0x210:
        # The position of a text that begins with it (arch/x86/boot.rst: kernel_version).
        at = struct.unpack_from("<H", image, 0x20E)[0] + 512
        text = image[at : at + 200].partition(b"\0")[0].split()
        return text[0].decode(errors="replace") if text else None
    found = _BANNER.search(image)
    return found[1].decode(errors="replace") if found else None


def config_of(kernel: bytes) -> str | None:
    """The configuration in an uncompressed kernel; None where it was built without CONFIG_IKCONFIG."""
    start = kernel.find(b"IKCFG_ST\x1f\x8b")
    if start < 0:
        return None
    return _unpacked(kernel[start + len(b"IKCFG_ST") :]).decode(errors="replace")
