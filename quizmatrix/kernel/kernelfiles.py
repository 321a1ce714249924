"""Finds a kernel among files that are laid out like a root: unpacked packages, a user's folder, this machine.

Distributions differ. Debian and Ubuntu have the image and its configuration in /boot; Fedora, RHEL and
openSUSE have them beside the modules. Headers are in /usr/src, with include/generated/utsrelease.h.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from quizmatrix.core.decompress import LIMIT
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError, UsageError
from quizmatrix.core.version import natural_key
from quizmatrix.kernel import bootimage

# Folders of modules; of images, and of their configurations and lists of symbols.
_MODULES = ("usr/lib/modules", "lib/modules")
_BOOT = ("boot", ".")

# Names of images: those that are booted come before those that only debuggers and kdump take.
_IMAGES = ("vmlinuz", "bzImage", "Image", "image", "vmlinux", "vmlinux.xz", "vmlinux.gz", "vmlinux.zst")

# How deep below usr/src a folder of headers lies (openSUSE: linux-RELEASE-obj/ARCH/FLAVOUR).
_HEADERS_DEPTH = 3
_HEADERS_RELEASE = "include/generated/utsrelease.h"
_HEADERS_RELEASE_BYTES = 4096

# A release is the name of folders and a word for depmod(8).
_RELEASE = re.compile(r"\d[\w.+~-]{0,100}", re.ASCII)


class KernelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one kernel. headers: the folder that modules are built against, if it is there."""

    release: str
    image: Path
    modules: Path | None
    config: Path | None
    symbols: Path | None
    headers: Path | None


def look(root: Path, where: str, release: str | None = None) -> KernelFiles:
    """The kernel in a folder. where: names the folder in messages. release: of the wanted kernel.

    Raises UsageError where there is none, or several, UnpreparedError where headers are of another kernel.
    """
    modules = _modules_in(root)
    images = _images_in(root, modules)
    if release is not None:
        images = {name: path for name, path in images.items() if name == release}
    if not images:
        others = f"there are only modules of {_list(modules)}" if modules else "nothing in it is an image"
        raise UsageError(
            f"there is no kernel in {where}",
            cause=others,
            next_step="The image is boot/vmlinuz-RELEASE or lib/modules/RELEASE/vmlinuz: in linux-image "
            "(Debian, Ubuntu), kernel-core (Fedora, RHEL) or kernel-default (openSUSE).",
        )
    if len(images) > 1:
        raise UsageError(
            f"there are several kernels in {where}",
            cause=_list(images),
            next_step="Give each its own folder.",
        )
    ((found, image),) = images.items()
    return KernelFiles(
        release=found,
        image=image,
        modules=modules.get(found),
        config=_first(root, modules.get(found), ("config", f"config-{found}", ".config")),
        symbols=_first(root, modules.get(found), ("System.map", f"System.map-{found}")),
        headers=_headers_in(root, modules.get(found), found, where),
    )


def releases_in(root: Path) -> list[str]:
    """The releases of all kernels in a root that have modules, the newest first."""
    modules = _modules_in(root)
    return sorted(set(_images_in(root, modules)) & set(modules), key=natural_key, reverse=True)


def read(path: Path) -> bytes:
    """The content of a file. HostError says how to make it readable; DamagedError where it is too large."""
    try:
        if path.stat().st_size > LIMIT:
            raise DamagedError(f"{path.name} is too large", cause=f"it has more than {LIMIT >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise HostError(
            f"cannot read {path}", cause=error.strerror or str(error), next_step=f"sudo chmod a+r {path}"
        ) from error


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _modules_in(root: Path) -> dict[str, Path]:
    """The folders of modules by their releases."""
    found: dict[str, Path] = {}
    for place in _MODULES:
        for path in _folders(root / place):
            if _RELEASE.fullmatch(path.name):
                found.setdefault(path.name, path)
    return found


def _images_in(root: Path, modules: dict[str, Path]) -> dict[str, Path]:
    """The images by their releases. An image whose name has no release says it itself."""
    found: dict[str, Path] = {}
    for name in _IMAGES:
        for release, path in modules.items():
            if (path / name).is_file():
                found.setdefault(release, path / name)
        for place in _BOOT:
            for path in (root / place).glob(f"{name}-*"):
                release = path.name.removeprefix(f"{name}-")
                if path.is_file() and _RELEASE.fullmatch(release):
                    found.setdefault(release, path)
    if found:
        # Beside them may be `vmlinuz-R.old`, or `vmlinux-R.gz` for a debugger.
        return {release: path for release, path in found.items() if release in modules} or found
    for path in (root / place / name for name in _IMAGES for place in _BOOT):
        if path.is_file():
            return {_release_of(path, modules): path}
    return {}


def _release_of(image: Path, modules: dict[str, Path]) -> str:
    """The release of an image whose name does not say it."""
    found = bootimage.release_of(read(image))
    if found is None and len(modules) == 1:
        (found,) = modules
    if found is None or not _RELEASE.fullmatch(found):
        raise UnpreparedError(
            f"{image} does not say its release",
            next_step=f"Name it {image.name}-RELEASE, as `uname -r` prints it there.",
        )
    return found


def _first(root: Path, modules: Path | None, names: tuple[str, ...]) -> Path | None:
    places = [*([modules] if modules else []), *(root / place for place in _BOOT)]
    return next((path for place in places for name in names if (path := place / name).is_file()), None)


def source_of(headers: Path, root: Path) -> Path:
    """The folder with as much of the kernel's source as headers need: the one that their Makefile is of.

    Debian's and openSUSE's Makefile includes it, by the path at which it would be installed.
    """
    makefile = headers / "Makefile"
    text = read(makefile).decode(errors="replace")
    included = re.search(r"^include\s+([^\s$]+)/Makefile$", text, re.MULTILINE)
    if included is None:
        return makefile.resolve().parent
    folder = included[1]
    return (root / folder.lstrip("/") if folder.startswith("/") else headers / folder).resolve()


def pointed(makefile: bytes, root: Path) -> bytes:
    """The text of a Makefile of headers, in which /usr/src and /usr/lib are those of `root`."""
    return re.sub(rb"(?<![\w./-])(?=/usr/(src|lib)/)", lambda _: os.fsencode(root), makefile)


def _headers_in(root: Path, modules: Path | None, release: str, where: str) -> Path | None:
    others = []
    linked = [(modules / "build").resolve()] if modules is not None else []
    for path in (*linked, *_below(root / "usr/src", _HEADERS_DEPTH)):
        try:
            with (path / _HEADERS_RELEASE).open(errors="replace") as file:
                said = re.search(r'UTS_RELEASE "(.*)"', file.read(_HEADERS_RELEASE_BYTES))
        except OSError:
            continue
        theirs = said[1] if said else ""
        if theirs == release:
            return path
        others.append(theirs)
    if others and root != Path("/"):
        raise UnpreparedError(
            f"the headers in {where} are of another kernel",
            cause=f"they are of {_list(others)}, and the kernel is {release}",
            next_step="Take the headers of the same release, or leave them out: only modules need them.",
        )
    return None


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in _folders(folder):
        yield path
        if depth > 1:
            yield from _below(path, depth - 1)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, without links to folders, sorted."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []
