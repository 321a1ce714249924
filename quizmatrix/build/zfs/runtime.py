"""Finds the shared libraries that OpenZFS's programs need in a guest with the small image, which has none."""

from __future__ import annotations

import shutil
from pathlib import Path

from quizmatrix.build.zfs.sysroot import Sysroot
from quizmatrix.core import elf, objectfile
from quizmatrix.core.errors import UnpreparedError

# pthread_cancel(3) loads this library at run time, so that no program lists it.
_UNNAMED = "libgcc_s.so.1"


def gather(layer: Path, sysroot: Sysroot, into: Path) -> None:
    """Copy to `into` the libraries of the sysroot that the programs and libraries in `layer` need.

    Raises UnpreparedError where one is neither in the layer nor in the sysroot.
    """
    own = {path.name for path in layer.glob("usr/lib/*.so*")}
    # All files are searched: the tests' programs are below usr/share, and others below usr/libexec.
    files = [path for path in layer.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path)]
    loaders: set[str] = set()
    wanted, copied = {_UNNAMED}, set[str]()
    while files:
        for path in files:
            if loader := elf.interpreter_of(path):
                loaders.add(loader)
            try:
                wanted.update(set(objectfile.needed_by(path)) - own)
            except ValueError as error:
                if elf.machine_of(path) is None:
                    continue  # no program: a test's damaged file
                raise UnpreparedError(f"which libraries {path} needs is unknown", cause=str(error)) from error
        files = []
        for name in sorted(wanted - copied - {Path(loader).name for loader in loaders}):
            files.append(_find(name, sysroot))
            _copy(files[-1], into / "usr/lib" / name)
            copied.add(name)
    for loader in loaders:
        # The small image has /lib as a symlink to usr/lib, which a folder would hide, but no /lib64.
        place = f"usr{loader}" if loader.startswith("/lib/") else loader.lstrip("/")
        _copy(_find(Path(loader).name, sysroot), into / place)
        if not (into / "usr/lib" / Path(loader).name).exists():
            _copy(_find(Path(loader).name, sysroot), into / "usr/lib" / Path(loader).name)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _find(name: str, sysroot: Sysroot) -> Path:
    for folder in sysroot.libraries:
        if (folder / name).exists():
            return (folder / name).resolve()
    raise UnpreparedError(
        f"the library {name} is not in the sysroot {sysroot.folder}",
        cause=f"looked in {', '.join(map(str, sysroot.libraries))}",
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
