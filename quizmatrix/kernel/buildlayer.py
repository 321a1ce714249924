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
    state = _state(own)
    if own.is_dir() and not (stamp.is_file() and stamp.read_text() == state):
        async with paths.locked(paths.cache_dir() / "locks" / f"build-layer-{kernel.record.key}.lock"):
            await _index(kernel, own)
            paths.write_atomic(stamp, state.encode())
    return layer


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
    """Changes when a module comes, goes or is another."""
    facts = sorted(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in _files(own))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


async def _index(kernel: Kernel, own: Path) -> None:
    release = kernel.record.release
    with tempfile.TemporaryDirectory(dir=own, prefix=".index.") as name:
        both = Path(name) / _MODULES / release
        both.mkdir(parents=True)
        for top in (kernel.modules, own):
            for path in top.iterdir():
                if path.is_dir() and not path.name.startswith("."):
                    (both / path.name).symlink_to(path)
                elif top == kernel.modules and path.name.startswith(_READ_BY_DEPMOD):
                    shutil.copyfile(path, both / path.name)
        await modules.index_modules(Path(name), release)
        for path in both.glob("modules.*"):
            path.replace(own / path.name)
