"""The build layer: modules that were built for one kernel, such as OpenZFS, and what belongs to them.

One folder for each stored kernel; whatever is installed there is in every guest of that kernel, between the
kernel layer and the user's.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quizmatrix import paths
from quizmatrix.errors import host_error
from quizmatrix.kernel import modules
from quizmatrix.kernel.artifact import Kernel

_LAYER = "layer"
_INDEXED = "indexed"
_MODULES = "usr/lib/modules"
_READ_BY_DEPMOD = ("modules.builtin", "modules.order")


def root_of(kernel: Kernel) -> Path:
    """The layer's place, laid out like a guest's root; absent where nothing was built."""
    return _folder_of(kernel.record.key) / _LAYER


def _folder_of(key: str) -> Path:
    return paths.cache_dir() / "build-layers" / key


def remove(key: str) -> None:
    """Forget what was built for a kernel."""
    shutil.rmtree(_folder_of(key), ignore_errors=True)


async def obtain(kernel: Kernel) -> Path | None:
    """The build layer with an index of its modules and the kernel's together, or None where there is none.

    Raises DamagedError where depmod(8) finds fault with a module, HostError where it is not installed.
    """
    layer = root_of(kernel)
    if not layer.is_dir():
        return None
    own = layer / _MODULES / kernel.record.release
    stamp = layer.with_name(_INDEXED)
    if not own.is_dir() or _is_indexed(own, stamp):
        return layer
    try:
        async with paths.locked(paths.cache_dir() / "locks" / f"build-layer-{kernel.record.key}.lock"):
            if not _is_indexed(own, stamp):
                await _index(kernel, own)
                paths.write_atomic(stamp, _state(own).encode())
    except OSError as error:
        raise host_error(f"index the modules in {layer}", error) from error
    return layer


def _is_indexed(own: Path, stamp: Path) -> bool:
    return stamp.is_file() and stamp.read_text() == _state(own)


def has_module(kernel: Kernel, name: str) -> bool:
    """Whether a guest of this kernel can load a module of this name, or has it built in."""
    indexes = [
        top / index
        for top in (root_of(kernel) / _MODULES / kernel.record.release, kernel.modules)
        for index in ("modules.dep", "modules.builtin")
    ]
    return any(
        modules.module_name(line.partition(":")[0]) == name
        for index in indexes
        if index.is_file()
        for line in index.read_text().splitlines()
    )


def _files(own: Path) -> Iterator[Path]:
    return (path for path in own.rglob("*.ko*") if path.is_file())


def _state(own: Path) -> str:
    """Changes when a module comes, goes or is another, or when somebody else's depmod(8) was here."""
    found = [*_files(own), *own.glob("modules.dep*")]
    facts = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in found)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


async def _index(kernel: Kernel, own: Path) -> None:
    release = kernel.record.release
    folder = _folder_of(kernel.record.key)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".index.") as name:
        both = Path(name) / _MODULES / release
        for top in (kernel.modules, own):
            for path in _files(top):
                link = both / path.relative_to(top)
                link.parent.mkdir(parents=True, exist_ok=True)
                # Of two with one name the guest sees the upper layer's.
                link.unlink(missing_ok=True)
                link.symlink_to(path)
        for path in kernel.modules.glob("modules.*"):
            if path.name.startswith(_READ_BY_DEPMOD):
                shutil.copyfile(path, both / path.name)
        await modules.index_modules(Path(name), release)
        for path in both.glob("modules.*"):
            path.replace(own / path.name)
