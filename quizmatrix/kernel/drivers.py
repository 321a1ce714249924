"""Whether a kernel has the drivers by which a guest reaches its root and its host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# The option of the kernel's configuration for each driver, by the driver's name as a module.
SYMBOLS = {
    "virtio_pci": "VIRTIO_PCI",
    "virtio_console": "VIRTIO_CONSOLE",
    "virtio_blk": "VIRTIO_BLK",
    "virtio_scsi": "SCSI_VIRTIO",
    "sd_mod": "BLK_DEV_SD",
    "9p": "9P_FS",
    "9pnet_virtio": "NET_9P_VIRTIO",
    "overlay": "OVERLAY_FS",
    "squashfs": "SQUASHFS",
}

# The drivers for folders of the host; for disks as virtio has them, and as SCSI has them.
NINE_P = ("9p", "9pnet_virtio")
VIRTIO_DISKS = ("virtio_blk",)
SCSI_DISKS = ("virtio_scsi", "sd_mod")


def setting(config: str, driver: str) -> str:
    """The value of a driver's option: `y`, `m`, or empty."""
    # Not by a regular expression: that takes some milliseconds of every run.
    line = f"CONFIG_{SYMBOLS[driver]}="
    start = 0 if config.startswith(line) else config.find(f"\n{line}") + 1
    value = config[start : start + len(line) + 1].removeprefix(line)
    return value if value in ("y", "m") else ""


def has(drivers: Iterable[str], config: str, modules: Path) -> bool:
    """Whether a kernel has all these drivers, built in or as modules that are there."""
    settings = {setting(config, driver): None for driver in drivers}
    if "" in settings:
        return False
    return "m" not in settings or not lacking(drivers, config, modules)


def for_disks(config: str, modules: Path) -> tuple[str, ...]:
    """The drivers by which a guest of this kernel gets disks: virtio's, unless it has only SCSI's."""
    on_scsi = not has(VIRTIO_DISKS, config, modules) and has(SCSI_DISKS, config, modules)
    return SCSI_DISKS if on_scsi else VIRTIO_DISKS


def lacking(drivers: Iterable[str], config: str, modules: Path) -> list[str]:
    """Those of the drivers that the configuration has as modules, and that are not there."""
    try:
        index = (modules / "modules.dep").read_text()
    except OSError:
        index = ""
    return [one for one in drivers if setting(config, one) == "m" and not _is_listed(one, index)]


def _is_listed(driver: str, index: str) -> bool:
    name = driver.replace("_", "[-_]")
    return re.search(rf"/{name}\.ko(\.\w+)?:", index) is not None
