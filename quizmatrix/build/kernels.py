"""Builds kernels from source, and lists and removes cached kernels with the modules built for them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.build import parts
from quizmatrix.build.module.module import modules_dir
from quizmatrix.build.output import run_each
from quizmatrix.build.zfs.tree import zfs_dir
from quizmatrix.core import process, tomlfile
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, HostError, UsageError
from quizmatrix.core.folders import disk_usage, remove_tree
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.kernel import artifact, buildlayer, buildtree, source
from quizmatrix.kernel.artifact import DEBUG_INFO, KERNELS, Kernel
from quizmatrix.kernel.build import builds_dir, builds_locked, tools_for
from quizmatrix.kernel.buildtree import TREES
from quizmatrix.kernel.order import KernelOptions, Order, options_of
from quizmatrix.kernel.toolchain import TOOLCHAINS
from quizmatrix.model import kconfig, named
from quizmatrix.model.arch import Arch, host_arch, load_arch
from quizmatrix.model.cells import INSTALLED, cells_on_the_spot, default_source
from quizmatrix.model.matrix import Limits
from quizmatrix.prepare import selection


def build(
    specs: list[str],
    arches: list[str],
    options: KernelOptions,
    *,
    source_name: str | None = None,
    jobs: int | None = None,
    refresh: bool = False,
) -> int:
    """Build each kernel for each architecture, and print progress. Returns exit status 125 where one fails.

    arches: by default this host's. source_name: the source of versions that name none. jobs: the number of
    compilers at a time.
    """
    loaded = [load_arch(name) for name in arches or [host_arch().name]]
    specs = [
        text
        if ":" in text or text == INSTALLED
        else f"{source_name or default_source(text, ready_made=False)}:{text}"
        for text in specs
    ]
    kinds = {text: source.source_named(source.parse_spec(text).source) for text in specs}

    async def build_one(text: str, arch: Arch, tell: Tell) -> str:
        # Packages and folders may have no headers.
        needs_tree = kinds[text].is_built or kinds[text].build_tree is not None
        order = Order(arch=arch, options=options, tell=tell, jobs=jobs, needs_tree=needs_tree)
        return (await source.obtain(text, order, refresh=refresh)).record.key

    wanted = [(text, arch) for text in specs for arch in loaded]
    # Kernels whose tools are missing come first, so that the error is not printed after long builds.
    wanted.sort(key=lambda one: not _lacks_tools(one[1], options))
    return run_each({f"{text}-{arch.name}": partial(build_one, text, arch) for text, arch in wanted})


def _lacks_tools(arch: Arch, options: KernelOptions) -> bool:
    return any(process.find_program(tool) is None for tool in tools_for(arch, options))


def config_lines(
    variant: str | None, file: str | None, *, enable: list[str], disable: list[str], module: list[str]
) -> list[str]:
    """The configuration lines from a file and from options, which win.

    Raises UsageError where they are wrong.
    """
    if variant is not None and not kconfig.variant_file(variant).is_file():
        raise UsageError(f"unknown variant `{variant}`", next_step=f"Known: {', '.join(kconfig.variants())}.")
    keys = selection.config_lines(enable=enable, disable=disable, module=module)
    lines: list[str] = []
    if file is not None:
        text = tomlfile.read_text(Path(file))
        kconfig.check_fragment(text, file)
        text = kconfig.NOT_SET.sub(r"CONFIG_\1=n", text)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return kconfig.joined(lines, keys)


def print_list() -> None:
    """Print the kernels in the cache."""
    from tabulate import tabulate

    names: dict[str, list[str]] = {}
    for reference in artifact.references():
        names.setdefault(reference.key, []).append(named.shown(reference.spec))
    rows = []
    for key in KERNELS.stored():
        size = disk_usage(KERNELS.path(key)) // 1_000_000
        rows.append([key, ", ".join(names.get(key, [])) or "nothing any more", f"{size} MB"])
    if rows:
        print(tabulate(rows, headers=["kernel", "asked for as", "on disk"], disable_numparse=True))
    else:
        print("There are no kernels in the cache yet.")


def show(name: str) -> None:
    """Print what a kernel is, and where each requested configuration symbol came from."""
    key = _find(name, among_used=True)
    try:
        kernel = artifact.load(key)
    except DamagedError as error:
        raise DamagedError(str(error), next_step=f"quizmatrix kernel remove {key}") from error
    if kernel is None:
        raise UsageError(f"no kernel {key}", next_step="quizmatrix kernel list")
    record = kernel.record
    print(f"release  {record.release}\nfrom     {', '.join(record.packages)}\nfolder   {kernel.folder}")
    print(f"layer    {buildlayer.root_of(kernel)}: what is put there is in all its guests")
    if (symbols := kernel.symbols) is not None:
        print(f"symbols  {symbols}")
    _show_build_tree(kernel)
    for built in buildlayer.references(key):
        print(f"built    {built.name}: from {built.origin}, in all its guests")
    for asked in record.wishes:
        print(f"  {asked.line:44} {asked.origin}")


def obtain_debug_info(names: list[str]) -> int:
    """Fetch the debug information of kernels, and print progress. Returns exit status 125 where one fails.

    names: keys, their beginnings, or ids of cells.
    """

    async def obtain(key: str, tell: Tell) -> str:
        from quizmatrix.kernel import debuginfo

        kernel = artifact.load(key)
        if kernel is None:
            raise UsageError(f"no kernel {key}", next_step="quizmatrix kernel list")
        return str(await debuginfo.obtain(kernel, Order(arch=load_arch(kernel.record.arch), tell=tell)))

    keys = dict.fromkeys(_find(text, among_used=True) for text in names)
    return run_each({key: partial(obtain, key) for key in keys})


def _show_build_tree(kernel: Kernel) -> None:
    """Print the commands that build a module for a kernel by hand, or the one that fetches what they need."""
    tree = kernel.build_tree
    if tree is None:
        for reference in artifact.references():
            if reference.key == kernel.record.key and (command := _fetching_headers(reference)):
                print(f"modules  `{command}` fetches the headers that they are built against")
                break
        return
    path = f"PATH={process.printable([os.pathsep.join(map(str, tree.tools))])}:$PATH " if tree.tools else ""
    make = f"{path}make -C {process.printable([str(tree.folder), *tree.make])} M=$PWD"
    print(f"modules  {make} modules")
    print(f"install  {make} INSTALL_MOD_PATH={buildlayer.root_of(kernel) / 'usr'} modules_install")


def _fetching_headers(reference: artifact.KernelReference) -> str:
    """The command that fetches a ready-made kernel's headers; "" where there is none."""
    wanted, _, variant = reference.spec.partition("+")
    try:
        if source.source_named(source.parse_spec(wanted).source).build_tree is None:
            return ""
    except UsageError:
        return ""  # a file that it names is gone
    words = ["quizmatrix", "kernel", "build", wanted, "-a", reference.arch]
    return process.printable([*words, *(["--variant", variant] if variant else [])])


def remove(names: list[str], *, unused: bool = False) -> None:
    """Remove kernels from the cache, with their build trees and all that was built for them.

    names: all are removed, or none where one is in use. unused: also remove kernels to which no reference
    leads any more, except those in use, and unfinished builds.
    """
    if not names and not unused:
        raise UsageError("no kernel is named", next_step="quizmatrix kernel list; or --unused")
    named = list(dict.fromkeys(_find(text) for text in names))
    used = {*_used(), *named}
    forgotten = [key for key in KERNELS.stored() if key not in used] if unused else []
    with ExitStack() as stack:
        for key in named:
            stack.enter_context(KERNELS.removing(key))
            stack.enter_context(TREES.removing(key))
            stack.enter_context(DEBUG_INFO.removing(key))
        for key in named:
            _remove(key)
    for key in forgotten:
        try:
            with KERNELS.removing(key), TREES.removing(key), DEBUG_INFO.removing(key):
                _remove(key)
        except HostError as error:
            print(f"kept {key}: in use {error.cause}")
    if unused:
        anyio.run(_remove_unfinished)
        _remove_unused_trees()


def _remove(key: str) -> None:
    from quizmatrix.build import kselftest

    tree = artifact.build_folder_of(key)
    KERNELS.discard(KERNELS.path(key))
    TREES.discard(TREES.path(key))
    DEBUG_INFO.discard(DEBUG_INFO.path(key))
    buildlayer.remove(key)
    parts.forget(modules_dir(), key)
    parts.forget(zfs_dir(), f"modules-{key}")
    kselftest.forget(key)
    if tree is not None:
        _remove_build(tree)
    print(f"removed {key}")


def _remove_build(folder: Path) -> None:
    if folder.exists():
        remove_tree(folder)
    folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)


async def _remove_unfinished() -> None:
    """Remove the build folders that belong to no stored kernel; waits until no build is going on."""
    async with builds_locked(lambda: print("waiting for a build to end", flush=True)):
        kept = {tree for key in KERNELS.stored() if (tree := artifact.build_folder_of(key)) is not None}
        there = [path.with_suffix("") if path.suffix == ".log" else path for path in builds_dir().glob("*")]
        for folder in sorted(set(there) - kept):
            await in_thread(partial(_remove_build, folder))
            print(f"removed the build folder {folder.name}")


def _remove_unused_trees() -> None:
    """Remove the build trees that belong to no stored kernel, and the compilers that no build tree needs."""
    _remove_others(TREES, set(KERNELS.stored()))
    _remove_others(TOOLCHAINS, {key for record in buildtree.records() for key in record.toolchains})


def _remove_others(store: Store, kept: set[str]) -> None:
    for key in sorted(set(store.stored()) - kept):
        try:
            store.remove(key)
            print(f"removed the {store.what} {key}")
        except HostError as error:
            print(f"kept {key}: in use {error.cause}")


def _used() -> set[str]:
    return {reference.key for reference in artifact.references()}


def _find(text: str, *, among_used: bool = False) -> str:
    """The key of a kernel. text: its key, the beginning of only one key, or the id of a cell that has it.

    among_used: if several keys begin so, take the one that a specification means.
    """
    if not text:
        raise UsageError("a kernel's name is empty", next_step="Is a variable in the command line empty?")
    found = [key for key in KERNELS.stored() if key.startswith(text)]
    if text in found:
        return text
    if among_used and len(found) > 1:
        found = [key for key in found if key in _used()] or found
    if len(found) > 1:
        raise UsageError(f"`{text}` begins the names of several kernels: {', '.join(found)}")
    if found:
        return found[0]
    keys = {
        one.key
        for one in artifact.references()
        if one.spec.startswith(f"{named.SOURCE}:") and f"{named.shown(one.spec)}-{one.arch}" == text
        if KERNELS.path(one.key).is_dir()
    }
    if len(keys) > 1:
        raise UsageError(f"several matrices name a kernel `{text}`: {', '.join(sorted(keys))}")
    if keys:
        return keys.pop()
    next_step = "quizmatrix kernel list"
    for cell in cells_on_the_spot([text], Limits()):
        kernel = source.find(cell.kernel_spec, load_arch(cell.arch), options_of(cell))
        if kernel is not None:
            return kernel.record.key
        next_step += f"; or fetch or build it: quizmatrix prepare --only {text}"
    raise UsageError(f"`{text}` is no kernel in the cache", next_step=next_step)
