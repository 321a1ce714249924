"""The parts of an OpenZFS build: the programs of an architecture, and the modules of a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.sysroot import Sysroot
from quizmatrix.build.zfs.tree import ZfsTree
from quizmatrix.kernel import external
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import BuildTree
from quizmatrix.model.arch import Arch

# Folders of the tree that do not affect the modules.
_NOT_OF_MODULES = frozenset({"cmd", "contrib", "etc", "lib", "man", "rpm", "tests", "udev"})

# No type information for BPF, which needs the debug information, in the modules of ready-made kernels.
_WITHOUT_BTF = "CONFIG_DEBUG_INFO_BTF_MODULES="


class ZfsPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an OpenZFS build: the programs of an architecture, or the modules of a kernel.

    name: of its folder. configure: arguments of ./configure. environment: for that and make(1).
    make, install: arguments for each run of make; {layer} stands for the folder to install to.
    without: folders of the tree that do not affect it. linked: a folder of the tree whose sources need
    symlinks in the build folder. made_for: the key of its kernel, if it is for one.
    """

    name: str
    tree: ZfsTree
    arch: Arch
    sysroot: Sysroot
    options: ZfsOptions
    configure: list[str]
    environment: dict[str, str] = {}
    make: list[list[str]]
    install: list[list[str]]
    without: frozenset[str] = frozenset()
    linked: str = ""
    made_for: str = ""

    @property
    def folder(self) -> Path:
        """The folder where it is built."""
        return self.tree.work / self.name

    @property
    def making(self) -> dict[str, str]:
        """More of the environment, for make alone."""
        # Not on its command line, since some of the kernel's makefiles switch it off for what they compile.
        return {"GCOV_PROFILE": "y"} if self.options.coverage else {}

    @property
    def has_programs(self) -> bool:
        """Whether a guest of the small image needs the sysroot's libraries beside it."""
        return not self.made_for

    @property
    def log(self) -> Path:
        """The log of its build steps."""
        return self.folder.with_name(f"{self.name}.log")


def userland_part(tree: ZfsTree, arch: Arch, sysroot: Sysroot, options: ZfsOptions) -> ZfsPart:
    """The part with programs, libraries and tests, for all kernels of an architecture."""
    suite = f"-{sysroot.suite}" if sysroot.suite else ""
    name = f"userland-{arch.name}{suite}"
    # With a sysroot, the linker does not find this build's own shared libraries without -rpath-link (ld(1)).
    libraries = ":".join(map(str, _own_libraries(tree, tree.work / name)))
    flags = f"{sysroot.linker} -Wl,-rpath-link,{libraries}".strip()
    return ZfsPart(
        name=name,
        tree=tree,
        arch=arch,
        sysroot=sysroot,
        options=msgspec.structs.replace(options, coverage=False),
        configure=[
            "--with-config=user",
            *("--prefix=/usr", "--sbindir=/usr/sbin", "--libdir=/usr/lib", "--sysconfdir=/etc"),
            *("--localstatedir=/var", "--with-mounthelperdir=/usr/sbin", "--with-udevdir=/usr/lib/udev"),
            *("--with-dracutdir=/usr/lib/dracut", "--disable-systemd", "--disable-sysvinit", "--disable-pam"),
            *("--disable-pyzfs", "--disable-nls", "--disable-static"),
        ],
        make=[[f"LDFLAGS={flags}"]],
        install=[[f"LDFLAGS={flags}", "DESTDIR={layer}", "install"]],
    )


def _own_libraries(tree: ZfsTree, folder: Path) -> Iterator[Path]:
    """Where a build in `folder` has its shared libraries: up to OpenZFS 2.1, each where its makefile is."""
    yield folder / ".libs"
    with suppress(OSError):
        if "SUBDIRS" in (tree.path / "lib/Makefile.am").read_text(encoding="utf-8", errors="replace"):
            for makefile in sorted(tree.path.glob("lib/*/Makefile.am")):
                yield folder / "lib" / makefile.parent.name / ".libs"


def modules_part(tree: ZfsTree, arch: Arch, kernel: Kernel, sysroot: Sysroot, options: ZfsOptions) -> ZfsPart:
    """The part with the modules for one kernel. Raises UnpreparedError where its build tree is gone."""
    tree_of_kernel = external.require_build_tree(kernel)
    given = tree_of_kernel.variables | _paths_of_tools(tree_of_kernel)
    strip = [] if options.debug else ["INSTALL_MOD_STRIP=1"]
    is_ready_made = kernel.record.build is None
    # Distributions' kernels ask for debug information: a fifth of the compiler's time, and stripped at once.
    symbols = {"KCFLAGS": "-g0"} if is_ready_made and not options.debug else {}
    return ZfsPart(
        name=f"modules-{kernel.record.key}",
        tree=tree,
        arch=arch,
        sysroot=sysroot,
        options=msgspec.structs.replace(options, coverage=options.coverage and kernel.counts_lines),
        configure=[
            *("--with-config=kernel", f"--with-linux={tree_of_kernel.source}"),
            f"--with-linux-obj={tree_of_kernel.folder}",
            *(f"KERNEL_{name}={given[name]}" for name in ("ARCH", "CROSS_COMPILE", "CC") if given.get(name)),
        ],
        # OpenZFS before 2.3 does not know KERNEL_ARCH, but reads ARCH.
        environment={
            **{name: given.get(name, "") for name in ("ARCH", "CROSS_COMPILE")},
            **symbols,
            # ./configure, which compiles modules, too, clears MAKEFLAGS.
            **({"GNUMAKEFLAGS": _WITHOUT_BTF} if is_ready_made else {}),
        },
        # The rules for the first two are in the top Makefile alone.
        make=[["gitrev", "module/Kbuild", "module/Makefile"], ["-C", "module", "modules"]],
        # Without depmod: one index is made later, for all modules of a guest together.
        install=[
            [
                *("-C", "module", "INSTALL_MOD_PATH={layer}/usr", *strip, "DEPMOD=true"),
                *("DONT_DELETE_MODULES_FILES=1", "modules_install"),
            ]
        ],
        without=_NOT_OF_MODULES,
        # From 6.10 on, Kbuild looks for sources only beside the objects, whatever `src` is.
        linked="module",
        made_for=kernel.record.key,
    )


def _paths_of_tools(tree: BuildTree) -> dict[str, str]:
    """CC and CROSS_COMPILE with the paths of the kernel's own tools.

    They must not be found by PATH: ./configure tries the compiler for programs, too, with that one's linker.
    """
    compiler, prefix = tree.variables.get("CC", ""), tree.variables.get("CROSS_COMPILE", "")
    found = {}
    for folder in reversed(tree.tools):
        if compiler and (folder / compiler).exists():
            found["CC"] = str(folder / compiler)
        if prefix and (folder / f"{prefix}ld").exists():
            found["CROSS_COMPILE"] = str(folder / prefix)
    return found
