"""The files of the run layer that say what a guest joins: guest/programs/join.c reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quizmatrix.core import skeleton
from quizmatrix.model.spec import Bind, CellSpec, Share
from quizmatrix.run import slots


def files(spec: CellSpec, shares: list[Share]) -> dict[str, str]:
    """The files in the guest's /.quizmatrix: texts by name. shares: all that the guest has."""
    found = {
        # A prompt shows a host name only up to the first dot.
        "hostname": spec.labels.cell.replace(".", "_"),
        "slots": slots.lines_of(shares),
        "layers": "\n".join(share.tag for share in spec.files.layers),
        "usr-folders": _usr_folders(spec.files.layers),
        "disks": "\n".join(f"{disk.serial} {disk.bus}" for disk in spec.files.disks if disk.writable),
        "binds": "\n".join(_line_of(number, bind) for number, bind in enumerate(spec.files.binds)),
    }
    if any(_has_udev_rules(Path(folder)) for folder in _folders_of_the_user(spec)):
        found["udev-rules"] = "a layer has some"
    if spec.files.work_tree is not None:
        found["work-tree"] = spec.files.work_tree.path
        if links := spec.files.work_tree.links:
            found["names"] = "\n".join(f"{name}\n{place}" for name, place in links.items())
    return found


def ahead(spec: CellSpec, found: dict[str, str]) -> dict[str, str]:
    """Those by which a guest may join before its run is ready for it: all that were found, or none.

    It may not where it could write to a folder of the user's meanwhile, or where the run writes more to the
    run layer than these files and others beside them: a guest keeps what it once did not find.
    """
    writes = any(bind.writable for bind in spec.files.binds)
    has_more = bool(spec.command.profiles or spec.command.tests.files)
    return {} if writes or has_more else found


def _folders_of_the_user(spec: CellSpec) -> Iterator[str]:
    """Folders whose udev rules may be about any device.

    Those of modules that were built for a kernel (OpenZFS's) are about what they make when they are loaded.
    """
    layers = spec.files.layers
    yield from (layer.path for layer in layers if layer.is_users or layer.tag == "hand")
    yield from (profile.files for profile in spec.command.profiles if profile.files is not None)


def _has_udev_rules(folder: Path) -> bool:
    places = ("etc", "lib", "usr/lib", "usr/local/lib")
    return any((folder / place / "udev/rules.d").is_dir() for place in places)


def _line_of(number: int, bind: Bind) -> str:
    mode, kind = "rw" if bind.writable else "ro", "file" if bind.is_file else "folder"
    return f"bind{number} {mode} {kind} {bind.guest}"


def _usr_folders(layers: list[Share]) -> str:
    """A line for each merged folder (bin, lib, ...) with the layers that have it at the top: `lib user0`."""
    lines = []
    for name in skeleton.MERGED:
        folders = {share.tag: Path(share.path) / name for share in layers}
        tags = [tag for tag, folder in folders.items() if folder.is_dir() and not folder.is_symlink()]
        lines += [" ".join([name, *tags])] if tags else []
    return "\n".join(lines)
