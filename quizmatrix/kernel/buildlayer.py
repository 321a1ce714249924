"""Build layers: what was built for one kernel (OpenZFS, modules). Guests mount it above the kernel layer.

Each stored kernel has a folder for files that users put there by hand, and named references to what
quizmatrix built. A guest gets them as one folder of hard links with one module index: mounts cost boot time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core import paths, uses
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, host_error
from quizmatrix.core.store import Store, key_of
from quizmatrix.kernel import moduleindex, modules, overlaying
from quizmatrix.kernel.artifact import Kernel

# The name of the selftests of a kernel among what is built for it.
SELFTESTS = "selftests"

_FOLDER = "build-layers"
_LAYER = "layer"
_JOINED = "joined-"
_OF_TREES = "of-trees"
_MODULES = "usr/lib/modules"
# The places of modules in a layer; a guest sees a layer's /lib in /usr/lib.
_PLACES = (_MODULES, "lib/modules")

# Seconds for which a replaced layer stays after it was last prepared for a guest: a long test may use it
# while its developer edits and builds.
RECENT = 24 * 3600.0

# The release of the kernel that a module was built for (see modinfo(8)).
_VERMAGIC = re.compile(rb"\0vermagic=(\S+)")


class LayerReference(msgspec.Struct, frozen=True, kw_only=True):
    """What was built for a kernel, under one name.

    origin: the folder of its source. head: the branch and the commit that were checked out there, if it is of
    git. layers: the lowest first. runtime: further layers that guests with the small image need.
    unstripped: a folder with the modules before they were stripped, if there is one.
    """

    name: str
    origin: str
    head: str = ""
    layers: list[str]
    runtime: list[str] = []
    unstripped: str = ""

    @property
    def is_module(self) -> bool:
        """Whether it is a user's module: that has the name of its folder."""
        return self.name == paths.cache_name(Path(self.origin))

    @property
    def is_of_tree(self) -> bool:
        """Whether a guest gets it of one work tree only: OpenZFS."""
        return not self.is_module and self.name != SELFTESTS


def root_of(kernel: Kernel) -> Path:
    """The layer for files that users put there by hand, laid out like a guest's root. It may not exist."""
    return store_of(kernel.record.key).path(_LAYER)


def store_of(key: str) -> Store:
    """The build layers of one kernel."""
    lock = f"build-layer-{key}"
    return Store(what="build layer", folder=f"{_FOLDER}/{key}", reference="{}.json", lock=lock, stays=RECENT)


def _builds_of_trees(key: str) -> Store:
    """The references to the last build of each work tree, by the tree. `store_of` has the last of all."""
    return Store(what="build layer", folder=f"{_FOLDER}/{key}/{_OF_TREES}", reference="{}.json")


def remove(key: str) -> None:
    """Remove the references to all that was built for a kernel, and its joined layers."""
    shutil.rmtree(store_of(key).root, ignore_errors=True)


def write_reference(key: str, reference: LayerReference) -> None:
    """Add what was built for a kernel to its guests; it replaces an earlier reference of the same name."""
    encoded = msgspec.json.encode(reference)
    if reference.is_of_tree:
        _builds_of_trees(key).write_reference(paths.cache_name(Path(reference.origin)), encoded)
    store_of(key).write_reference(reference.name, encoded)


def forget(key: str, name: str) -> None:
    """Remove what was built under this name from the guests of a kernel."""
    store_of(key).reference_of(name).unlink(missing_ok=True)


def kernels() -> list[str]:
    """The keys of the kernels that something was built for, sorted."""
    return sorted(path.name for path in (paths.cache_dir() / _FOLDER).glob("*") if path.is_dir())


def references(key: str) -> list[LayerReference]:
    """What was built for a kernel and still exists, sorted by name; of several work trees, the last build."""
    return _read(store_of(key))


def builds_of_trees(key: str) -> list[LayerReference]:
    """What was built for a kernel of each work tree and still exists, sorted by the tree."""
    # An earlier quizmatrix wrote only the last one.
    last = [reference for reference in references(key) if reference.is_of_tree]
    found = {reference.origin: reference for reference in (*_read(_builds_of_trees(key)), *last)}
    return [found[origin] for origin in sorted(found)]


def references_in(key: str, tree: Path | None) -> list[LayerReference]:
    """What the guests of a kernel get where a command is run in the work tree `tree`, sorted by name.

    What is built of work trees is the build of this one, or is missing. Without a tree it is the last build.
    """
    if tree is None:
        return references(key)
    own = [reference for reference in builds_of_trees(key) if reference.origin == str(tree)]
    others = [reference for reference in references(key) if not reference.is_of_tree]
    return sorted((*own, *others), key=lambda reference: reference.name)


def _read(store: Store) -> list[LayerReference]:
    found = []
    for _, content in store.references():
        with contextlib.suppress(msgspec.MsgspecError):
            reference = msgspec.json.decode(content, type=LayerReference)
            if all(Path(layer).is_dir() for layer in (*reference.layers, *reference.runtime)):
                found.append(reference)
    return found


def module_references(key: str) -> list[LayerReference]:
    """The modules that were built here for a kernel, without OpenZFS, whose references have its own name."""
    return [found for found in references(key) if found.is_module]


def layers_in_use() -> set[str]:
    """All layers that guests of any kernel get."""
    every = (reference for key in kernels() for of in (references, builds_of_trees) for reference in of(key))
    return {layer for reference in every for layer in (*reference.layers, *reference.runtime)}


def _referenced(kernel: Kernel, tree: Path | None, *, with_runtime: bool) -> list[Path]:
    found: list[Path] = []
    for reference in references_in(kernel.record.key, tree):
        found += map(Path, [*(reference.runtime if with_runtime else []), *reference.layers])
    return found


def _by_hand(kernel: Kernel) -> list[Path]:
    return [root] if (root := root_of(kernel)).is_dir() else []


async def obtain(kernel: Kernel, tree: Path | None = None, *, with_runtime: bool) -> list[Path]:
    """The build layers of a kernel, the lowest first: the files put there by hand, and all built ones joined.

    tree: see `references_in`. with_runtime: for the small image. Raises DamagedError where a module was built
    for another kernel or depmod(8) fails, HostError where depmod is missing or the disk is full.
    """
    # Layers that are replaced meanwhile stay until they are joined.
    held = uses.Uses()
    try:
        referenced = await _held(kernel, tree, held, with_runtime=with_runtime)
        return await _join(kernel, _by_hand(kernel), referenced)
    finally:
        held.release()


async def _held(kernel: Kernel, tree: Path | None, held: uses.Uses, *, with_runtime: bool) -> list[Path]:
    """The referenced layers, held so that no process removes them."""
    are_there = False
    while not are_there:
        referenced = _referenced(kernel, tree, with_runtime=with_runtime)
        are_there = True
        for layer in referenced:
            are_there = await held.hold(layer) and are_there
    return referenced


async def _join(kernel: Kernel, by_hand: list[Path], referenced: list[Path]) -> list[Path]:
    layers = [*by_hand, *referenced]
    found = [
        own
        for layer in layers
        for own in _modules_in(layer, kernel.record.release)
        if any(moduleindex.files(own))
    ]
    if not found:
        _check_release(kernel, layers)
    store = store_of(kernel.record.key)
    try:
        async with store.locked(kernel.record.key):
            if not found and not referenced:
                _evict(store)
                return by_hand
            joined = store.path(f"{_JOINED}{_state(referenced, found)}")
            if not joined.is_dir():
                await _make_joined(kernel, joined, referenced, found)
            os.utime(joined)
            _evict(store)
    except OSError as error:
        raise host_error(f"join what was built for {kernel.record.release}", error) from error
    return [*by_hand, joined]


async def _make_joined(kernel: Kernel, joined: Path, referenced: list[Path], found: list[Path]) -> None:
    """Lay the referenced layers over each other, and index all modules. found: the folders of modules."""
    with paths.new_dir(joined) as made:
        await in_thread(partial(overlaying.lay_over_each_other, referenced, made), is_awaited=True)
        await in_thread(partial(_check_modules, kernel, found))
        if found:
            await moduleindex.write(kernel, found, made, store_of(kernel.record.key))


def tag_of(layer: Path) -> str:
    """The tag of a build layer's share: `joined` for the joined layer, whose path names its content."""
    return "joined" if layer.name.startswith(_JOINED) else "hand"


def has_module(kernel: Kernel, name: str, tree: Path | None = None) -> bool:
    """Whether guests of this kernel can load a module of this name, or have it built in.

    tree: see `references_in`.
    """
    release = kernel.record.release
    layers = [*_by_hand(kernel), *_referenced(kernel, tree, with_runtime=False)]
    built = (
        path for layer in layers for own in _modules_in(layer, release) for path in moduleindex.files(own)
    )
    if any(modules.module_name(path.name) == name for path in built):
        return True
    return any(
        modules.module_name(line.partition(":")[0]) == name
        for index in ("modules.dep", "modules.builtin")
        if (kernel.modules / index).is_file()
        for line in (kernel.modules / index).read_text().splitlines()
    )


def module_names(layer: Path) -> set[str]:
    """The names of the modules in a layer, as `modprobe` takes them."""
    return {modules.module_name(path.name) for own in _modules_in(layer) for path in moduleindex.files(own)}


def check(kernel: Kernel, layer: Path) -> None:
    """Raise DamagedError where a module in a layer was built for another kernel."""
    folders = _modules_in(layer, kernel.record.release)
    if not any(path for folder in folders for path in moduleindex.files(folder)):
        _check_release(kernel, [layer])
    _check_modules(kernel, folders)


def _check_modules(kernel: Kernel, folders: list[Path]) -> None:
    for folder in folders:
        for path in moduleindex.files(folder):
            _check_vermagic(kernel, path)


def _modules_in(layer: Path, release: str | None = None) -> list[Path]:
    """The folders in a layer that may hold modules for `release`, or for any kernel."""
    places = [layer / place for place in _PLACES if not (layer / place.split("/", 1)[0]).is_symlink()]
    return [path for place in places for path in ([place / release] if release else sorted(place.glob("*")))]


def _state(referenced: list[Path], found: list[Path]) -> str:
    """A hash that changes when the layers change, or a module is added, removed or changed."""
    modules_of = (path for own in found for path in sorted(moduleindex.files(own)))
    facts = [
        f"{path} {(status := path.stat()).st_size} {status.st_mtime_ns} {status.st_ino}"
        for path in (*referenced, *modules_of)
    ]
    return key_of(facts)


def _check_release(kernel: Kernel, layers: list[Path]) -> None:
    """Raise DamagedError where the layers have modules, but none for this kernel's release."""
    for layer in layers:
        others = [path.name for path in _modules_in(layer) if any(moduleindex.files(path))]
        if others:
            raise _of_another(kernel, layer, others[0])


def _of_another(kernel: Kernel, where: Path, other: str) -> DamagedError:
    return DamagedError(
        f"the modules in {where} are not for the kernel {kernel.record.release}",
        cause=f"they were built for {other}",
        next_step=f"Build them again, as `quizmatrix kernel show {kernel.record.key}` says.",
    )


def _check_vermagic(kernel: Kernel, path: Path) -> None:
    data = modules.decompress(path.name, path.read_bytes())
    match = _VERMAGIC.search(b"\0" + data)
    if match and match.group(1).decode(errors="replace") != kernel.record.release:
        raise _of_another(kernel, path, match.group(1).decode(errors="replace"))


def _evict(store: Store) -> None:
    """Remove joined layers and indexes that were not used recently, but never the last two nor one in use."""
    for kind in (_JOINED, moduleindex.KEPT):
        made = sorted(store.root.glob(f"{kind}*"), key=lambda path: path.stat().st_mtime)
        store.evict(made[:-2])
