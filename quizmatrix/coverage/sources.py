"""The source trees that counted lines are of: kernels, OpenZFS's work trees, and modules."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from quizmatrix.build.module import dkmspackage
from quizmatrix.build.module.module import Module
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel


class CountedTrees:
    """The trees of one page. A tree has one name, whatever kernels it was compiled for.

    folders: the names by folder, a tree's own and copies of it; "" where its files do not count.
    """

    def __init__(self) -> None:
        """Knows no tree yet."""
        # By where it is, and what it is: a folder may hold one kernel after the other.
        self._names: dict[tuple[str, str], str] = {}
        self.folders: dict[str, str] = {}

    def add(self, kernel: Kernel) -> dict[str, str]:
        """Add a kernel's own source, and that of everything that was built for it.

        Returns the folders of modules that were compiled in a sandbox, by their paths there.
        """
        record, places = kernel.record, {}
        if (tree := kernel.build_tree) is not None and kernel.counts_own_lines:
            self.add_tree(tree.source, f"linux-{record.version}", tree.source)
        elif tree is not None:
            # A module has code of the kernel's headers, which is not its own.
            self.folders[str(tree.source.resolve())] = ""
        for reference in buildlayer.builds_of_trees(record.key):
            self.add_tree(Path(reference.origin), Path(reference.origin).name, Path(reference.origin))
        for reference in buildlayer.module_references(record.key):
            module = Module(path=Path(reference.origin))
            for folder in (module.path, module.copy(kernel)):
                self.add_tree(module.path, module.path.name, folder)
            if module.is_dkms and (package := dkmspackage.load(module, kernel)) is not None:
                places[package.place()] = str(package.folder)
        return places

    def add_tree(self, origin: Path, name: str, folder: Path) -> None:
        """Add a tree. folder: where the compiler found its files, which may be a copy."""
        known = self._names.get((str(origin), name))
        if known is None:
            taken = set(self._names.values())
            free = (f"{name}-{number}" if number > 1 else name for number in range(1, len(taken) + 2))
            known = self._names[str(origin), name] = next(one for one in free if one not in taken)
        self.folders[str(folder.resolve())] = known

    def original(self, file: str) -> str:
        """The path of a source file, by its name."""
        tree, _, below = file.partition("/")
        origin = next(origin for (origin, _), known in self._names.items() if known == tree)
        return f"{origin}/{below}"


def on_host(path: str, places: Mapping[str, str]) -> Path:
    """A path as the compiler saw it. places: folders, by their paths in a sandbox."""
    for place, folder in places.items():
        if Path(path).is_relative_to(place):
            return Path(folder, Path(path).relative_to(place))
    return Path(path)


def find_name(real: Path, trees: Mapping[str, str]) -> str | None:
    """The name of a source file, which begins with its tree's; None where it is of none. real: its path."""
    for folder in real.parents:
        if (name := trees.get(str(folder))) is not None:
            return f"{name}/{real.relative_to(folder)}"
    return None


def tree_of(file: str) -> str:
    """The tree of a file, by its name."""
    return file.partition("/")[0]


def copy_in(file: str, real: Path, folder: Path) -> None:
    """Copy a source file below a folder, by its name, unless it is there. Raises OSError where it is gone."""
    target = folder / file
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, target)
