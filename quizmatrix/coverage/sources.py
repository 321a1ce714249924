"""The source trees that counted lines are of: kernels, OpenZFS's work trees, and modules."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import msgspec

from quizmatrix.build.module import dkmspackage
from quizmatrix.build.module.module import Module
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel


class SourcePlaces(msgspec.Struct, kw_only=True):
    """Where the sources of one guest's code are.

    folders: the names of trees, by a tree's own folder and by copies of it; "" where its files do not count.
    origins: a tree's own folder, by its name. sandboxed: folders, by their paths in a sandbox.
    """

    folders: dict[str, str] = {}
    origins: dict[str, str] = {}
    sandboxed: dict[str, str] = {}

    def on_host(self, path: str) -> Path:
        """A path as the compiler saw it, on this host."""
        for place, folder in self.sandboxed.items():
            if Path(path).is_relative_to(place):
                return Path(folder, Path(path).relative_to(place))
        return Path(path)

    def name_of(self, real: Path) -> str | None:
        """The name of the source file at a path, which begins with its tree's; None where it is of none."""
        for folder in real.parents:
            if (name := self.folders.get(str(folder))) is not None:
                return f"{name}/{real.relative_to(folder)}"
        return None

    def original(self, file: str) -> Path:
        """The path of a source file in the user's tree, by its name."""
        tree, _, below = file.partition("/")
        return Path(self.origins[tree], below)


class CountedTrees:
    """The trees of one page. A tree has one name, whatever kernels it was compiled for."""

    def __init__(self) -> None:
        """Knows no tree yet."""
        # By where it is, and what it is: a folder may hold one kernel after the other.
        self._names: dict[tuple[str, str], str] = {}
        self.places = SourcePlaces()

    def add(self, kernel: Kernel) -> SourcePlaces:
        """Add a kernel's own source, and that of everything that was built for it; returns all places."""
        record, sandboxed = kernel.record, {}
        if (tree := kernel.build_tree) is not None and kernel.counts_own_lines:
            self.add_tree(tree.source, f"linux-{record.version}", tree.source)
        elif tree is not None:
            # A module has code of the kernel's headers, which is not its own.
            self.places.folders[str(tree.source.resolve())] = ""
        for reference in buildlayer.builds_of_trees(record.key):
            self.add_tree(Path(reference.origin), Path(reference.origin).name, Path(reference.origin))
        for reference in buildlayer.module_references(record.key):
            module = Module(path=Path(reference.origin))
            for folder in (module.path, module.copy(kernel)):
                self.add_tree(module.path, module.path.name, folder)
            if module.is_dkms and (package := dkmspackage.load(module, kernel)) is not None:
                sandboxed[package.place()] = str(package.folder)
        return msgspec.structs.replace(self.places, sandboxed=sandboxed)

    def add_tree(self, origin: Path, name: str, folder: Path) -> None:
        """Add a tree. folder: where the compiler found its files, which may be a copy."""
        known = self._names.get((str(origin), name))
        if known is None:
            taken = set(self._names.values())
            free = (f"{name}-{number}" if number > 1 else name for number in range(1, len(taken) + 2))
            known = self._names[str(origin), name] = next(one for one in free if one not in taken)
            self.places.origins[known] = str(origin)
        self.places.folders[str(folder.resolve())] = known


def tree_of(file: str) -> str:
    """The tree of a file, by its name."""
    return file.partition("/")[0]


def copy_in(file: str, real: Path, folder: Path) -> bool:
    """Copy a source file below a folder, by its name; False where another text of it is there."""
    target = folder / file
    if target.exists():
        return filecmp.cmp(real, target, shallow=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(real, target)
    return True
