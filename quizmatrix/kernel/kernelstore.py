"""Stores a kernel that was found among files, with its modules and its headers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from quizmatrix.core import elf
from quizmatrix.core.checksum import state_of
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.decompress import xz_head
from quizmatrix.core.errors import DamagedError, UnpreparedError, host_error
from quizmatrix.core.store import key_of
from quizmatrix.core.version import leading_version
from quizmatrix.kernel import artifact, bootimage, buildtree, drivers, kernelfiles, modules
from quizmatrix.kernel.kernelfiles import KernelFiles, read
from quizmatrix.kernel.order import DEFAULT, Order
from quizmatrix.model.arch import Arch, machine_name

# Part of every key; has to be changed when something else is made from the same files.
RECIPE = "1"

# Bytes that all modules of one kernel may have, decompressed.
_MAX_MODULES = 8 << 30

# What distributions have beside the modules and a guest's modules do without.
_NO_MODULES = re.compile(r"vmlinu|System\.map|config|bzImage|[Ii]mage|symvers|symtypes")

# The path of a module. depmod(8) writes it to modules.dep as it is, where a blank, a line's end or a colon
# would make it name other files, those of the host among them.
_MODULE_PATH = re.compile(r"[!-9;-~]+")

_ELF_HEADER = 64


def check_order(text: str, order: Order) -> None:
    """Raise UnpreparedError where the options need a kernel that is built here. text: the kernel's name."""
    if order.options != DEFAULT:
        raise UnpreparedError(
            f"the kernel {text} with {order.options.variant or 'another configuration'} has to be built",
            cause="its files have it ready-made",
            next_step="Name one that is built, such as debian-source:6.12, or leave the variant out.",
        )


def recipe(arch: Arch) -> str:
    """A text that names all that a stored kernel depends on, except its files."""
    return f"{RECIPE} {arch.facts.kernel.image}"


async def store(
    found: KernelFiles,
    order: Order,
    *,
    origin: list[str],
    content: str,
    place_tree: Callable[[Path, Path], Awaitable[buildtree.TreeRecord]],
) -> str:
    """Have a kernel in the cache; returns its key.

    origin: where it came from, for a person. content: names the content of all its files. place_tree: puts
    its headers into a folder that is then renamed (the second argument); called where the order needs them.
    Raises UnpreparedError where it is of another architecture, lacks modules that a guest needs, or has no
    headers that the order needs.
    """
    arch = order.arch
    key = f"{found.release}-{key_of([recipe(arch), arch.name, content])}"
    if order.needs_tree and found.headers is None:
        raise _no_headers(found.release)

    async def make(folder: Path) -> None:
        order.tell(f"storing the kernel {found.release}")
        config = await in_thread(partial(_arrange, found, folder, arch))
        await modules.index_modules(folder / artifact.LAYER, found.release)
        stored = folder / artifact.LAYER / "usr/lib/modules" / found.release
        _check_drivers(found.release, config, stored, arch)
        version = leading_version(found.release)
        artifact.write_record(
            folder,
            artifact.KernelRecord(
                key=key,
                arch=arch.name,
                version=version.text if version else found.release,
                release=found.release,
                packages=origin,
            ),
        )

    waiting = partial(order.tell, "waiting for another quizmatrix that stores it")
    action = f"store the kernel {found.release}"
    await artifact.KERNELS.get_or_make(key, make, action=action, waiting=waiting, find=artifact.load)
    if order.needs_tree:

        async def make_tree(folder: Path) -> None:
            buildtree.write_record(folder, await place_tree(folder, buildtree.TREES.path(key)))

        await buildtree.TREES.get_or_make(
            key, make_tree, action=action, waiting=waiting, find=buildtree.find_whole
        )
    return key


def make_words(arch: Arch) -> list[str]:
    """The words for make(1) with which modules are built against headers for an architecture."""
    prefix = "" if arch.is_native else arch.facts.cross_prefix
    return [f"ARCH={arch.facts.build.make_arch}", f"CROSS_COMPILE={prefix}", f"CC={prefix}gcc"]


def _no_headers(release: str) -> UnpreparedError:
    return UnpreparedError(
        f"no modules can be built for the kernel {release}",
        cause="its files have no headers",
        next_step=f"Add their package: linux-headers-{release} (Ubuntu, Debian) with its -common, "
        "kernel-devel (Fedora, RHEL), kernel-default-devel (openSUSE).",
    )


def _arrange(found: KernelFiles, folder: Path, arch: Arch) -> str:
    """Fill a kernel's folder; returns the kernel's configuration."""
    image = read(found.image)
    try:
        boot = bootimage.boot_file(image, wants_vmlinux=arch.facts.kernel.image == "vmlinux")
    except DamagedError:
        # Its format may be that of another architecture; then the modules' error says so.
        _copy_modules(found, folder, arch)
        raise
    _check_machine(boot[:_ELF_HEADER], arch, f"the kernel {found.release}")
    _copy_modules(found, folder, arch)
    theirs = bootimage.release_of(image) or bootimage.release_of(boot)
    if theirs is not None and theirs != found.release:
        raise UnpreparedError(
            f"the kernel image {found.image.name} is not of {found.release}",
            cause=f"it says that it is {theirs}",
            next_step="Take the image and the modules of the same release.",
        )
    config = _config_of(found, boot)
    (folder / artifact.IMAGE).write_bytes(boot)
    (folder / artifact.CONFIG).write_text(config, encoding="utf-8")
    if found.symbols is not None:
        (folder / artifact.SYSTEM_MAP).write_bytes(read(found.symbols))
    return config


def _config_of(found: KernelFiles, boot: bytes) -> str:
    if found.config is not None:
        return read(found.config).decode(errors="replace")
    config = bootimage.config_of(boot)
    if config is None:
        raise UnpreparedError(
            f"the configuration of the kernel {found.release} is missing",
            cause="there is no config file beside it, and it was built without CONFIG_IKCONFIG",
            next_step=f"Put it there as boot/config-{found.release}: Ubuntu has it in linux-modules.",
        )
    return config


def _copy_modules(found: KernelFiles, folder: Path, arch: Arch) -> None:
    """Copy the modules to the layer. What busybox or kmod cannot decompress is decompressed."""
    into = folder / artifact.LAYER / "usr/lib/modules" / found.release
    into.mkdir(parents=True, exist_ok=True)
    left = _MAX_MODULES
    for path in _files_of(found.modules) if found.modules is not None else ():
        name = str(path.relative_to(found.modules or path))
        data = read(path)
        if name.endswith(artifact.MODULE_NAMES):
            data = _checked_module(name, data, arch)
            name = re.sub(r"(?<=\.ko)\.(gz|zst)$", "", name)
        left -= len(data)
        if left < 0:
            raise DamagedError(f"the modules of {found.release} unpack to more than {_MAX_MODULES >> 30} GiB")
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(data)


def _checked_module(name: str, data: bytes, arch: Arch) -> bytes:
    """A module as it is stored: decompressed, except for xz. UnpreparedError where it is not for `arch`."""
    if not _MODULE_PATH.fullmatch(name):
        raise DamagedError("the modules are damaged", cause=f"one is called {name!r}")
    try:
        if name.endswith(".xz"):
            head = xz_head(data, _ELF_HEADER)
        else:
            data = modules.decompress(name, data)
            head = data[:_ELF_HEADER]
        if elf.machine_in(head) is None:
            raise ValueError("it is no ELF file")
    except ValueError as error:
        raise DamagedError(f"the module {name} is damaged", cause=str(error)) from error
    _check_machine(head, arch, f"the module {Path(name).name}")
    return data


def _files_of(folder: Path) -> list[Path]:
    """The files among a kernel's modules, without links: those lead to headers or other kernels' modules."""
    found = []
    for top, folders, names in os.walk(folder):
        folders.sort()
        paths = (Path(top, name) for name in sorted(names))
        if Path(top) == folder:
            paths = (path for path in paths if not _NO_MODULES.match(path.name))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def _check_machine(head: bytes, arch: Arch, what: str) -> None:
    machine = elf.machine_in(head)
    if machine is not None and machine != arch.machine:
        raise UnpreparedError(
            f"{what} is for {machine_name(machine)}, and the cell for {arch.name}",
            next_step=f"Take the packages for {arch.name}, or -a {machine_name(machine)}.",
        )


def _check_drivers(release: str, config: str, stored: Path, arch: Arch) -> None:
    """Raise UnpreparedError where a guest of this kernel would not reach its root."""
    needed = [name for name in arch.facts.kernel.modules if name not in drivers.NINE_P]
    if not drivers.has(drivers.NINE_P, config, stored):
        needed += ["squashfs", *drivers.for_disks(config, stored)]
    unset = [f"CONFIG_{drivers.SYMBOLS[name]}" for name in needed if not drivers.setting(config, name)]
    if unset:
        raise UnpreparedError(
            f"the kernel {release} cannot reach a guest's root", cause=f"it lacks {', '.join(unset)}"
        )
    lacking = drivers.lacking(needed, config, stored)
    if lacking:
        raise UnpreparedError(
            f"the kernel {release} comes without modules that a guest needs: {', '.join(lacking)}",
            cause="its configuration has them as modules, and there is no such file",
            next_step=f"Add the packages with its modules: linux-modules-{release} (Ubuntu), "
            "kernel-modules-core and kernel-modules (Fedora, RHEL).",
        )


async def store_in_place(found: KernelFiles, root: Path, order: Order, *, where: str) -> str:
    """Have a kernel in the cache whose files stay where they are; its headers are used there.

    where: names it in messages. Raises UnpreparedError as `store` does.
    """
    check_order(where, order)
    try:
        content = await in_thread(partial(_content_of, found))
    except OSError as error:
        raise host_error(f"read the modules of {where}", error) from error

    async def tree_in_place(folder: Path, final: Path) -> buildtree.TreeRecord:
        headers = found.headers or root
        source = kernelfiles.source_of(headers, root)
        if root != Path("/"):
            headers = await in_thread(partial(_pointed_headers, headers, root, folder, final))
        return buildtree.TreeRecord(folder=str(headers), source=str(source), make=make_words(order.arch))

    return await store(found, order, origin=[where], content=content, place_tree=tree_in_place)


def _pointed_headers(headers: Path, root: Path, folder: Path, final: Path) -> Path:
    """The folder of headers whose Makefile names no path of this host, but those in `root`.

    `root` is the user's and stays as it is: where the Makefile has to be changed, the folder is a new one
    with links to all else. folder: the build tree's, which is then renamed to `final`.
    """
    text = read(headers / "Makefile")
    pointed = kernelfiles.pointed(text, root)
    if pointed == text:
        return headers
    tree = folder / headers.name
    tree.mkdir(parents=True)
    for path in headers.iterdir():
        if path.name != "Makefile":
            (tree / path.name).symlink_to(path)
    (tree / "Makefile").write_bytes(pointed)
    return final / headers.name


def _content_of(found: KernelFiles) -> str:
    """A text that changes with the kernel's files: image, configuration, and the states of its modules."""
    parts = [hashlib.sha256(read(path)).hexdigest() for path in (found.image, found.config) if path]
    return key_of([*parts, state_of(found.modules) if found.modules else "", str(found.headers)], 64)
