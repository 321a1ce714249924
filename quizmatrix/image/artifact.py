"""Base images in the cache: the read-only root file system of one architecture."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.core.store import Store

# The suites from which images are made, in order of preference.
SUITES = ("bookworm", "trixie", "sid")


IMAGES = Store(what="image", folder="images", record="{}/image.json", lock="image-{}")


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A base image as a guest gets it.

    archive: its part of the initramfs, which contains busybox. key: names the archive's content. disk: a file
    with a read-only file system, the base layer; None where the base layer is in the archive. disk_type: the
    type of the file system, which is also the name of its kernel module.
    """

    key: str
    archive: Path
    disk: Path | None = None
    disk_type: str = "squashfs"
