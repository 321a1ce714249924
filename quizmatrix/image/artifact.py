"""Base images in the cache: the read-only root file system of one architecture."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.core.store import Store

# The suites whose packages an image is made of, in order of preference.
SUITES = ("bookworm", "trixie", "sid")


IMAGES = Store(what="image", folder="images", record="{}/image.json", lock="image-{}")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A base image as a guest gets it.

    archive: its part of an initramfs, with the guest's own busybox; key: the content of that.
    disk: a read-only file system that is the base layer; None where that is in the archive.
    disk_type: as mount(8) and the kernel's module call it.
    """

    key: str
    archive: Path
    disk: Path | None = None
    disk_type: str = "squashfs"
