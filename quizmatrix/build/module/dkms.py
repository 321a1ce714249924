"""Builds a package's modules for one kernel as its dkms.conf says, in the sandbox.

A dkms.conf and all that it starts are programs from elsewhere. They get a copy of the source, and a host that
looks like one which runs the kernel: uname(1) and /lib/modules/RELEASE/build are the kernel's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from quizmatrix.build.module import dkmsconf
from quizmatrix.build.module.dkmsconf import DkmsConf
from quizmatrix.build.module.dkmspackage import DKMS_TREE, DkmsPackage
from quizmatrix.build.module.module import Module, WaitsForModuleError
from quizmatrix.build.parts import NotForThisKernel
from quizmatrix.core import buildstep, paths, process, sandbox, untrusted
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.sandbox import Sandbox
from quizmatrix.core.text import clean_line
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import BuildTree

# Where sources are for dkms(8); in the sandbox they are there.
_SOURCE_TREE = "/usr/src"

# Where Debian's dkms installs modules, whatever DEST_MODULE_LOCATION says; modprobe takes them before the
# kernel's own.
_PLACE = "updates/dkms"

# uname(1) of a host that runs the kernel.
_UNAME = """#!/bin/sh
{uname} "$@" | sed "s|$({uname} -r)|{release}|g; s|$({uname} -m)|{arch}|g"
"""

# Variables for make(1) that scripts read, too.
_EXPORTED = frozenset({"ARCH", "CROSS_COMPILE", "CC"})

_RUN = 'eval "$1"'
_RUN_SCRIPT = """script=${1%% *}
if [ -x "./$script" ]; then exec ./$1; else echo "$script is not executable, and is not run"; fi"""

# Bytes of a module, which may be a sparse file, and of a log in which the first error is looked for.
_MODULE_AT_MOST, _LOG_AT_MOST = 1 << 30, 64 << 20


class DkmsWork(msgspec.Struct, frozen=True, kw_only=True):
    """One build.

    copy: the folder with a fresh copy of the source. make: variables for make(1), NAME=VALUE. exported: files
    with the symbols of other modules. packages: the other packages that are built. pending: names of those
    that may still be. run: runs a step, with its environment and its words for `log`.
    """

    module: Module
    kernel: Kernel
    tree: BuildTree
    copy: Path
    log: Path
    make: Sequence[str]
    exported: Sequence[str]
    packages: Sequence[DkmsPackage]
    pending: Sequence[str]
    is_sandboxed: bool
    run: Callable[[list[str], Mapping[str, str], str], Awaitable[None]]
    tell: Tell


async def build(work: DkmsWork, layer: Path) -> DkmsPackage:
    """Build the modules, and make a layer of them.

    Raises NotForThisKernel where dkms.conf leaves the kernel out, WaitsForModuleError where it names a
    package that may still be built, UnpreparedError where a step fails or a module is missing, DamagedError
    where one was built for another kernel, HostError where this host has no sandbox.
    """
    if work.is_sandboxed:
        _require_sandbox(work)
    host = _Host(work)
    conf = await dkmsconf.evaluate(
        host.variables(None), host.command(None), folder=work.copy, env=host.environment
    )
    release = work.kernel.record.release
    if why := conf.exclusion(release, work.kernel.config):
        raise NotForThisKernel(clean_line(why))
    _check_dependencies(work, conf)
    await _steps(work, conf, host)
    with paths.new_dir(layer) as made:
        place = made / "usr/lib/modules" / release / _PLACE
        place.mkdir(parents=True)
        for module in conf.modules:
            shutil.copyfile(_made(work, module.built), place / f"{module.name}.ko")
        _check_release(work, conf, made)
    await host.run(conf, _RUN_SCRIPT, conf.get("POST_BUILD"))
    return DkmsPackage(name=conf.name, version=conf.version, folder=work.copy)


def with_own_paths(text: str, copy: Path, source: Path) -> str:
    """A text in which the user's folder stands for the copy, by whatever path the copy was known."""
    places = "|".join(re.escape(str(place)) for place in (DKMS_TREE, f"{_programs(copy)}/dkms"))
    text = re.sub(rf"(?:{places})/[^/\s]+/[^/\s]+/(?:build|source)\b", lambda _: str(source), text)
    for path in (copy, copy.resolve()):
        text = text.replace(str(path), str(source))
    return text


def _programs(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.host")


def _require_sandbox(work: DkmsWork) -> None:
    try:
        sandbox.require()
    except HostError as error:
        raise HostError(
            f"{work.module.path / dkmsconf.NAME} is a shell program, which needs a sandbox",
            cause=str(error),
            next_step=f"{error.next_step}\n  If you trust what it does: --no-sandbox",
        ) from error


class _Host:
    """The host as the package's programs see it."""

    def __init__(self, work: DkmsWork) -> None:
        self._work = work
        self._release = work.kernel.record.release
        self._programs = _programs(work.copy)
        shutil.rmtree(self._programs, ignore_errors=True)
        self._programs.mkdir(parents=True)
        uname = self._programs / "uname"
        real = process.require_program("uname", "coreutils")
        uname.write_text(_UNAME.format(uname=real, release=self._release, arch=work.kernel.record.arch))
        uname.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """make(1)'s variables win over a Makefile's own; scripts find them in the environment."""
        work = self._work
        path = [str(self._programs), *map(str, work.tree.tools), os.environ.get("PATH", os.defpath)]
        words = [*work.tree.make, *work.make]
        given = {
            **{name: value for name, value in work.tree.variables.items() if name in _EXPORTED},
            "PATH": os.pathsep.join([*path, "/usr/sbin", "/sbin"]),
            "GNUMAKEFLAGS": " ".join(re.sub(r"([\\\s])", r"\\\1", word) for word in words),
        }
        if work.exported:
            # Not for make's command line: a Makefile may name files of its own.
            given["KBUILD_EXTRA_SYMBOLS"] = " ".join(work.exported)
        return given

    def variables(self, conf: DkmsConf | None) -> str:
        """Shell text that sets dkms's variables. They are not exported: make would take them for its own."""
        work = self._work
        values = {
            "kernelver": self._release,
            "arch": work.kernel.record.arch,
            "kernel_source_dir": self._place("build") if work.is_sandboxed else work.tree.folder,
            "dkms_tree": self._dkms_tree,
            "source_tree": _SOURCE_TREE if work.is_sandboxed else f"{self._programs}/src",
            "install_tree": "/lib/modules",
            "tmp_location": "/tmp",  # noqa: S108
        }
        if conf is not None:
            values |= {"module": conf.name, "module_version": conf.version}
        return "\n".join(f"{name}={shlex.quote(str(value))}" for name, value in values.items())

    def _place(self, name: str) -> str:
        return f"/lib/modules/{self._release}/{name}"

    @property
    def _dkms_tree(self) -> str:
        return DKMS_TREE if self._work.is_sandboxed else f"{self._programs}/dkms"

    def command(self, conf: DkmsConf | None, *, writes: bool = False) -> Callable[[Sequence[str]], list[str]]:
        """What wraps a command line so that it runs in this host. conf: whose folders there are."""
        work = self._work
        folders = {place: one.folder for one in work.packages for place in self._places(one)}
        links = {}
        if conf is None:
            start = str(work.copy)
        else:
            own = DkmsPackage(name=conf.name, version=conf.version, folder=work.copy)
            start = self._build(own)
            folders |= dict.fromkeys(self._places(own), work.copy)
            links[start.removesuffix("build") + "source"] = start
        if not work.is_sandboxed:
            _lay_out(folders, links, start)
            return list
        folder, source = work.tree.folder.resolve(), work.tree.source.resolve()
        theirs = {
            self._place("build"): folder,
            self._place("source"): source,
            f"/usr/src/linux-headers-{self._release}": folder,
        }
        links |= {place: str(target) for place, target in theirs.items() if not sandbox.shows(place, target)}
        # Where dkms.conf was read: there, bash expanded a `$PWD` in MAKE.
        folders[str(work.copy)] = work.copy
        writable = {place: path for place, path in folders.items() if writes and path == work.copy}
        return Sandbox(
            folder=start,
            readable=[*paths.cache_folders(), folder, source, *work.tree.tools, work.copy],
            shown={place: path for place, path in folders.items() if place not in writable},
            writable=writable,
            links=links,
        ).command

    def _places(self, package: DkmsPackage) -> tuple[str, str]:
        """Where a package's folder is. No symlinks: a dkms.conf may look there with find(1)."""
        return self._build(package), self._source(package)

    def _build(self, package: DkmsPackage) -> str:
        return package.place(self._dkms_tree)

    def _source(self, package: DkmsPackage) -> str:
        sources = _SOURCE_TREE if self._work.is_sandboxed else f"{self._programs}/src"
        return f"{sources}/{package.name}-{package.version}"

    async def run(self, conf: DkmsConf, script: str, given: str) -> None:
        """Run a shell script with one word of dkms.conf, if there is any, in the copy."""
        if given:
            argv = ["bash", "-c", f"{self.variables(conf)}\n{script}", "bash", given]
            await self._work.run(self.command(conf, writes=True)(argv), self.environment, given)


def _lay_out(folders: Mapping[str, Path], links: Mapping[str, str], own: str) -> None:
    """Make the places of a host without a sandbox. own: the place of the package's own folder, if it is one.

    That folder moves to its place, since programs as find(1) do not follow a symlink.
    """
    for place, target in [*((place, str(path)) for place, path in folders.items()), *links.items()]:
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if place == own and not path.exists():
            Path(target).rename(path)
            Path(target).symlink_to(path)
        elif place != own:
            path.unlink(missing_ok=True)
            path.symlink_to(target)


async def _steps(work: DkmsWork, conf: DkmsConf, host: _Host) -> None:
    """Do what dkms does between copying the source and installing its modules."""
    for patch in conf.patches:
        if not (work.copy / "patches" / patch).is_file():
            raise UnpreparedError(
                f"{work.module.path} could not be built", cause=f"there is no patches/{patch}"
            )
        work.tell(f"applying {clean_line(patch)}")
        await host.run(conf, 'patch -p1 -i "patches/$1"', patch)
    if before := conf.get("PRE_BUILD"):
        work.tell(f"running {clean_line(before.partition(' ')[0])}")
        await host.run(conf, _RUN_SCRIPT, before)
    # As dkms, it goes on if that fails; the copy is clean.
    await host.run(conf, f"({_RUN}) >/dev/null 2>&1 || true", conf.get("CLEAN"))
    make = conf.make or 'make -C "$kernel_source_dir" M="$dkms_tree/$module/$module_version/build"'
    if make.startswith("make"):
        make = f"make KERNELRELEASE={shlex.quote(work.kernel.record.release)}{make.removeprefix('make')}"
    work.tell(f"compiling {clean_line(conf.name)}")
    await host.run(conf, _RUN, make)
    for module in conf.modules:
        _made(work, module.built)
    for module in conf.modules:
        if module.strip:
            await host.run(conf, f'{_strip(work.tree)} -g -- "$1"', module.built)


def _strip(tree: BuildTree) -> str:
    """The program that removes debugging information, as words for a shell."""
    llvm = tree.variables.get("LLVM", "")
    if llvm:
        before, after = (llvm, "") if llvm.endswith("/") else ("", llvm if llvm.startswith("-") else "")
        return shlex.quote(f"{before}llvm-strip{after}")
    return shlex.quote(f"{tree.variables.get('CROSS_COMPILE', '')}strip")


def _made(work: DkmsWork, name: str) -> Path:
    """A module that MAKE left. Raises UnpreparedError where it is missing, huge, or a link to elsewhere."""
    path = (work.copy / name).resolve()
    if path.is_relative_to(work.copy.resolve()) and path.is_file():
        if path.stat().st_size <= _MODULE_AT_MOST:
            return path
        raise UnpreparedError(
            f"{work.module.path} could not be built", cause=f"{clean_line(name)} is too large"
        )
    made = sorted(str(path.relative_to(work.copy)) for path in untrusted.files_below(work.copy, ".ko"))
    with work.log.open("rb") as log:
        # MAKE may be several commands, of which the last hides that another failed.
        error = buildstep.first_error(log.read(_LOG_AT_MOST).decode(errors="replace"))
    raise UnpreparedError(
        f"{work.module.path} could not be built",
        cause=with_own_paths(error, work.copy, work.module.path)
        or f"MAKE made no {clean_line(name)}, only {', '.join(made[:5]) or 'no module at all'}",
        next_step=f"The whole log: {work.log}",
    )


def _check_release(work: DkmsWork, conf: DkmsConf, into: Path) -> None:
    """Raise DamagedError where a module was built for another kernel."""
    try:
        buildlayer.check(work.kernel, into)
    except DamagedError as error:
        is_hosts = os.uname().release in error.cause
        raise DamagedError(
            f"{work.module.path} was not built for the kernel {work.kernel.record.release}",
            cause=error.cause + (", which this host runs" if is_hosts else ""),
            next_step="MAKE in dkms.conf has to build in $kernel_source_dir, and says: "
            f"{clean_line(conf.make)}",
        ) from error


def _check_dependencies(work: DkmsWork, conf: DkmsConf) -> None:
    """Raise WaitsForModuleError where it has to wait. Say what will not be there: no error to dkms either."""
    missing = [name for name in conf.depends if name not in {package.name for package in work.packages}]
    if waits_for := [name for name in missing if name in work.pending]:
        raise WaitsForModuleError(f"{work.module.path} waits for {', '.join(waits_for)}")
    if missing:
        work.tell(f"BUILD_DEPENDS has {clean_line(', '.join(missing))}, which is not built with it")
    if conf.get("OBSOLETE_BY"):
        work.tell(f"OBSOLETE_BY is {clean_line(conf.get('OBSOLETE_BY'))}; it is built all the same")
