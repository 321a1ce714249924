"""Builds kernels from source, and lists and removes cached kernels with the modules built for them."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio

from quizmatrix.build import parts
from quizmatrix.build.module.build import modules_dir
from quizmatrix.build.output import run_each
from quizmatrix.build.zfs.tree import zfs_dir
from quizmatrix.core import process, tomlfile
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, HostError, UsageError
from quizmatrix.core.folders import disk_usage, remove_tree
from quizmatrix.core.process import Tell
from quizmatrix.kernel import artifact, buildlayer, source
from quizmatrix.kernel.artifact import KERNELS
from quizmatrix.kernel.build import builds_dir, builds_locked, tools_for
from quizmatrix.kernel.order import KernelOptions, Order, options_of
from quizmatrix.model import kconfig
from quizmatrix.model.arch import Arch, host_arch, load_arch
from quizmatrix.model.cells import cells_on_the_spot, default_source
from quizmatrix.model.matrix import Limits
from quizmatrix.prepare.selection import words


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
        text if ":" in text else f"{source_name or default_source(text, ready_made=False)}:{text}"
        for text in specs
    ]
    for text in specs:
        source.parse_spec(text)

    async def build_one(text: str, arch: Arch, tell: Tell) -> str:
        order = Order(arch=arch, options=options, tell=tell, jobs=jobs, needs_tree=True)
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
    """The configuration lines from a file and from options. Raises UsageError where they are wrong."""
    if variant is not None and not kconfig.variant_file(variant).is_file():
        raise UsageError(f"unknown variant `{variant}`", next_step=f"Known: {', '.join(kconfig.variants())}.")
    keys = [
        f"CONFIG_{name}={value}"
        for value, given in (("y", enable), ("n", disable), ("m", module))
        for name in map(_symbol, words("-e, -d, -m", given))
    ]
    kconfig.check_fragment("\n".join(keys), "the command line")
    lines: list[str] = []
    if file is not None:
        text = tomlfile.read_text(Path(file))
        kconfig.check_fragment(text, file)
        text = kconfig.NOT_SET.sub(r"CONFIG_\1=n", text)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    # Options win over the file.
    typed = {line.partition("=")[0] for line in keys}
    return [line for line in lines if line.partition("=")[0].strip() not in typed] + keys


def _symbol(text: str) -> str:
    name = text.removeprefix("CONFIG_")
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise UsageError(
            f"`{text}` is no symbol of a kernel's configuration",
            next_step="Name it alone, as in -e KASAN; a file of CONFIG_X=value lines goes to --config.",
        )
    return name


def print_list() -> None:
    """Print the kernels in the cache."""
    from tabulate import tabulate

    names: dict[str, list[str]] = {}
    for reference in artifact.references():
        names.setdefault(reference.key, []).append(reference.spec)
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
    for built in buildlayer.references(key):
        print(f"built    {', '.join(built.layers)}: from {built.origin}, in all its guests")
    tree = kernel.build_tree
    if tree is not None:
        print(f"symbols  {tree / 'vmlinux'}")
        make = f"make -C {process.printable([str(tree), *record.make])} M=$PWD"
        print(f"modules  {make} modules")
        print(f"install  {make} INSTALL_MOD_PATH={buildlayer.root_of(kernel) / 'usr'} modules_install")
    for asked in record.wishes:
        print(f"  {asked.line:44} {asked.origin}")


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
        for key in named:
            _remove(key)
    for key in forgotten:
        try:
            with KERNELS.removing(key):
                _remove(key)
        except HostError as error:
            print(f"kept {key}: in use {error.cause}")
    if unused:
        anyio.run(_remove_unfinished)


def _remove(key: str) -> None:
    tree = artifact.build_tree_of(key)
    KERNELS.discard(KERNELS.path(key))
    buildlayer.remove(key)
    parts.forget(modules_dir(), key)
    parts.forget(zfs_dir(), f"modules-{key}")
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
        kept = {tree for key in KERNELS.stored() if (tree := artifact.build_tree_of(key)) is not None}
        there = [path.with_suffix("") if path.suffix == ".log" else path for path in builds_dir().glob("*")]
        for folder in sorted(set(there) - kept):
            await in_thread(partial(_remove_build, folder))
            print(f"removed the build folder {folder.name}")


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
    for cell in cells_on_the_spot([text], Limits()):
        kernel = source.find(cell.kernel_spec, load_arch(cell.arch), options_of(cell))
        if kernel is not None:
            return kernel.record.key
    raise UsageError(f"`{text}` is no kernel in the cache", next_step="quizmatrix kernel list")
