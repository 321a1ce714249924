"""The programs of a kernel's build (fixdep, modpost, ...) for headers that come without any for this host.

A distribution's headers have them for its own architecture. Debian has those of its series for each host, in
linux-kbuild, and they do for any kernel of the series.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path

from quizmatrix.core import elf, paths
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.version import leading_version, natural_key
from quizmatrix.debian import apt, foreign
from quizmatrix.kernel import toolchain
from quizmatrix.kernel.buildtree import TREES
from quizmatrix.kernel.headers import first_choices
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.toolchain import Toolchain
from quizmatrix.model.arch import host_arch, machine_name
from quizmatrix.model.archive import load_archive

# Where programs are, below the headers and in linux-kbuild.
_FOLDERS = ("scripts", "tools")

# The one that every build runs.
PROGRAM = "scripts/basic/fixdep"


async def provide(headers: Path, release: str, order: Order) -> Toolchain:
    """Put Debian's programs of the same series into a folder of headers; the compilers of their suite.

    Raises UnpreparedError where Debian has none of the series, or does not deliver them.
    """
    host = host_arch()
    version = leading_version(release)
    series = version.series if version else release
    machine = elf.machine_of(headers / PROGRAM)
    why = f"are for {machine_name(machine)}" if machine is not None else "are not among them"
    archive, debian = load_archive(), host.facts.debian
    if order.is_offline:
        raise UnpreparedError(
            f"no modules can be built for {release} now",
            cause=f"its headers' programs (modpost, fixdep) {why}; --offline forbids fetching Debian's",
            next_step=f"Once, with a network: this without --offline. Or add linux-kbuild for {host.name}.",
        )

    async def ask(root: apt.AptRoot) -> tuple[apt.AptRoot, apt.Package] | None:
        pattern = re.compile(rf"linux-kbuild-{re.escape(series)}(\.[\w.+~-]+)?")
        names = [name for name in await root.names("linux-kbuild-") if pattern.fullmatch(name)]
        shown = sorted(await root.show(*names), key=lambda one: natural_key(one.version)) if names else []
        return (root, shown[-1]) if shown else None

    suites = archive.suites_of(series, debian.arch) if debian is not None else []
    order.tell(f"the headers' programs {why}; taking those of Debian's {series}")
    found = await apt.ask_suites(suites, debian.arch if debian else "", order.tell, ask, is_first_enough=True)
    if not found:
        raise UnpreparedError(
            f"no modules can be built for {release} on this host",
            cause=f"its headers' programs (modpost, fixdep) {why}, and Debian has none of {series}",
            next_step=f"Build them on a {order.arch.name} host, or for a kernel that is built here.",
        )
    root, package = found[0]
    suite, needed = archive.suite[root.suite].compilers or root.suite, first_choices(package.depends)
    compilers = await toolchain.obtain(suite, order.arch, None, needed, order.tell)
    with paths.scratch(TREES.root, "kbuild") as name:
        await apt.unpack(await root.download([package], Path(name)), Path(name))
        programs = await in_thread(partial(_put, Path(name), headers))
    await foreign.use_runtime(programs, compilers.runtime)
    return compilers


def _put(unpacked: Path, headers: Path) -> list[Path]:
    """Copy the programs of linux-kbuild over those of the headers; returns the copies that need a loader."""
    (kbuild,) = (path for path in (unpacked / "usr/lib").glob("linux-kbuild-*") if not path.is_symlink())
    for name in _FOLDERS:
        target = headers / name
        if not target.is_dir():
            # Debian's headers have a link to the package that is not there.
            target.unlink(missing_ok=True)
            shutil.copytree(kbuild / name, target, symlinks=True)
            continue
        for top, _, files in os.walk(kbuild / name):
            for file in files:
                path = Path(top, file)
                if elf.machine_of(path) is not None:
                    own = headers / path.relative_to(kbuild)
                    own.parent.mkdir(parents=True, exist_ok=True)
                    own.unlink(missing_ok=True)
                    shutil.copy2(path, own)
    machine = toolchain.host_machine()
    return [path for name in _FOLDERS for path, _ in foreign.programs(headers / name, machine)]
