"""The source folder of a module, and what in it is built: a dkms.conf, or a folder with a Kbuild."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec

from quizmatrix.build.module import dkmsconf, mirror
from quizmatrix.build.parts import STAYS
from quizmatrix.core import paths, process, untrusted
from quizmatrix.core.errors import UnpreparedError, UsageError
from quizmatrix.core.store import Store
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.tree import read_version

_FOLDER = "modules"

# The files of which kbuild reads the first that exists, and a line in them that names a module.
_KBUILD = ("Kbuild", "Makefile")
_NAMES_MODULE = re.compile(rb"^\s*obj-(?:[my]|\$[({]\w+[)}])\s*[:+?]*=", re.MULTILINE)

# Where a module's Kbuild usually is, if not at the top; and how deep it is looked for elsewhere.
_USUAL = ("src", "kernel", "driver")
_DEPTH = 4

# The file in which kbuild lists a module's exported symbols.
_SYMBOLS = "Module.symvers"
# Bytes of such a file that are kept: a line for each symbol. A build in the sandbox chooses what it leaves.
_SYMBOLS_AT_MOST = 64 << 20

# A line of a dkms.conf.
_PACKAGE_NAME = re.compile(rb"""^\s*PACKAGE_NAME=["']?([\w.+~-]+)""", re.MULTILINE)


# The next step for a symbol of which nothing is known.
NAME_ITS_FOLDER = "Name the folder of the module that exports it, too: quizmatrix module build DIR DIR"


class NeedsOtherModuleError(UnpreparedError):
    """A module uses a symbol that neither the kernel nor a module which is built with it exports."""


class WaitsForModuleError(NeedsOtherModuleError):
    """A module has to be built after another one, by its BUILD_DEPENDS."""


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """The source folder of a module, or of several. It is never written to.

    below: the folder in it that has the Kbuild, relative; "" is the top.
    """

    path: Path
    below: str = ""

    @property
    def mark(self) -> str:
        """The module's name in the cache, and among the references of a kernel."""
        return paths.cache_name(self.path)

    @property
    def work(self) -> Path:
        """The folder where it is built; each kernel has its own folder there."""
        return store_of(self.mark).root

    @property
    def is_dkms(self) -> bool:
        """Whether it is built as its dkms.conf says."""
        return (self.path / dkmsconf.NAME).is_file()

    @property
    def package_name(self) -> str:
        """The name in its dkms.conf; "" where there is none, or bash has to make it."""
        try:
            found = _PACKAGE_NAME.search((self.path / dkmsconf.NAME).read_bytes())
        except OSError:
            return ""
        return found[1].decode() if found else ""

    def copy(self, kernel: Kernel) -> Path:
        """The copy of the folder in which it is built for a kernel."""
        return self.work / kernel.record.key

    def log(self, kernel: Kernel) -> Path:
        """The file with the output of the last build for the kernel."""
        return self.work / f"{kernel.record.key}.log"

    def symbols(self, kernel: Kernel) -> list[Path]:
        """The files with the symbols that it exports, as it is installed for the kernel; most often one."""
        return sorted(self.symbols_folder(kernel).glob("*"))

    def symbols_folder(self, kernel: Kernel) -> Path:
        """Where those files are; it is missing before the first build for the kernel."""
        return self.work / f"{kernel.record.key}.symbols"

    def keep_symbols(self, kernel: Kernel) -> None:
        """Keep the symbols of a build that has succeeded: those in the copy go with the next attempt."""
        folder = self.symbols_folder(kernel)
        shutil.rmtree(folder, ignore_errors=True)
        with paths.new_dir(folder) as made:
            for number, path in enumerate(sorted(untrusted.files_below(self.copy(kernel), _SYMBOLS))):
                with untrusted.open_regular(path) as file:
                    (made / f"{number:04}.symvers").write_bytes(file.read(_SYMBOLS_AT_MOST))


def modules_dir() -> Path:
    """The folder where modules are built."""
    return paths.cache_dir() / _FOLDER


def store_of(mark: str) -> Store:
    """The store of a module's installed layers. mark: see Module.mark."""
    return Store(
        what="module",
        folder=f"{_FOLDER}/{mark}",
        place="layers/{}",
        reference="{}.installed",
        lock=f"module-{mark}-{{}}",
        stays=STAYS,
    )


def find_module(asked: str) -> Module:
    """The module in the folder `asked`. Raises UsageError where there is none."""
    path = Path(asked).resolve()
    if not path.is_dir():
        raise UsageError(
            f"there is no folder {asked}", next_step="quizmatrix module build DIR --only 6.1-s390x"
        )
    try:
        version = read_version(path)
    except ValueError:
        version = None
    if version is not None:
        raise UsageError(
            f"{path} is a whole kernel, {version.text}, and no module",
            next_step=f"quizmatrix kernel build path:{process.printable([str(path)])}",
        )
    if paths.cache_dir().is_relative_to(path):
        raise UsageError(
            f"{path} cannot be built as a module",
            cause=f"the cache, to which it would be copied, is inside it: {paths.cache_dir()}",
            next_step="Name the module's own folder, or another cache with QUIZMATRIX_CACHE_DIR.",
        )
    module = Module(path=path)
    return module if module.is_dkms else Module(path=path, below=_kbuild_folder(path))


def _kbuild_folder(path: Path) -> str:
    """The folder in a source that has the Kbuild: the top, a usual one, or the only one; relative.

    Raises UsageError where there is none, or several.
    """
    has_file = any((path / name).is_file() for name in _KBUILD)
    if _names_module(path):
        return ""
    for name in _USUAL:
        if _names_module(path / name):
            return name
    found = _all_below(path)
    if len(found) == 1:
        return found[0]
    if has_file and not found:
        return ""  # it may include a file that names the module
    if found:
        raise UsageError(
            f"{path} holds several kernel modules",
            cause=f"in {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}",
            next_step=f"Name them: quizmatrix module build {process.printable([str(path / found[0])])} ...",
        )
    raise UsageError(
        f"{path} holds no kernel module",
        cause=f"there is no {dkmsconf.NAME}, and neither a {' nor a '.join(_KBUILD)} with obj-m in it",
        next_step=f"echo 'obj-m := NAME.o' >{process.printable([str(path / _KBUILD[0])])}"
        " builds NAME.c there.",
    )


def _names_module(folder: Path) -> bool:
    """Whether the file that kbuild would read in this folder names a module."""
    for name in _KBUILD:
        try:
            return _NAMES_MODULE.search((folder / name).read_bytes()) is not None
        except OSError:
            continue
    return False


def _all_below(path: Path) -> list[str]:
    """All folders below `path` that have a Kbuild and are not below one that has."""
    found = []
    for folder, names, _ in os.walk(path):
        below = Path(folder).relative_to(path)
        names[:] = sorted(name for name in names if name not in mirror.LEFT_OUT and name[0] != ".")
        if _names_module(Path(folder)):
            found.append(str(below))
            names.clear()
        elif len(below.parts) >= _DEPTH:
            names.clear()
    return sorted(found)
