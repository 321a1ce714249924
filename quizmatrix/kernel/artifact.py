"""Kernels in the cache: stored by content, found by what was asked for, and checked before use."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quizmatrix.core.checksum import Checksum, checksum_of
from quizmatrix.core.errors import DamagedError
from quizmatrix.core.store import Store, key_of
from quizmatrix.model.kconfig import Wish

SCHEMA = 1

_RECORD = "kernel.json"

KERNELS = Store(
    what="kernel",
    folder="kernels",
    record=f"{{}}/{_RECORD}",
    reference="refs/{}.json",
    lock="kernel-{}",
)

# The files of a kernel's folder.
IMAGE = "image"
LAYER = "layer"
CONFIG = "config"
SYSTEM_MAP = "System.map"
_MODULE_NAMES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")

# In a build folder: the key of the kernel that was built there last.
BUILD_STAMP = "quizmatrix.key"


class KernelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stored kernel (its kernel.json).

    key: the content it was made from. version: upstream's. release: what `uname -r` prints.
    packages: where it came from, for a person. Where it was built here, wishes: what was asked of its
    configuration; build: the folder it was built in; make: the arguments that make(1) was given.
    """

    schema: int = SCHEMA
    key: str
    arch: str
    version: str
    release: str
    packages: list[str]
    wishes: list[Wish] = []
    build: str | None = None
    make: list[str] = []
    files: dict[str, Checksum] = {}


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """A stored kernel: its folder and its record."""

    folder: Path
    record: KernelRecord

    @property
    def image(self) -> Path:
        """What QEMU's -kernel gets."""
        return self.folder / IMAGE

    @property
    def layer(self) -> Path:
        """The kernel layer: usr/lib/modules/RELEASE."""
        return self.folder / LAYER

    @property
    def modules(self) -> Path:
        """Where the kernel's modules and their index are."""
        return self.layer / "usr/lib/modules" / self.record.release

    @property
    def has_9p(self) -> bool:
        """Whether it mounts folders of the host over virtio-9p."""
        return all(
            re.search(rf"^CONFIG_{symbol}=[ym]$", self.config, re.MULTILINE)
            for symbol in ("9P_FS", "NET_9P_VIRTIO")
        )

    @property
    def config(self) -> str:
        """The text of its configuration."""
        return (self.folder / CONFIG).read_text(encoding="utf-8")

    @property
    def build_tree(self) -> Path | None:
        """What external modules are built against; None where it is gone or holds another kernel by now."""
        if self.record.build is None:
            return None
        folder = Path(self.record.build)
        try:
            is_ours = (folder / BUILD_STAMP).read_text() == self.record.key
        except OSError:
            return None
        return folder if is_ours else None

    @property
    def has_lost_its_tree(self) -> bool:
        """Whether it was built here, and what external modules are built against is gone."""
        return self.record.build is not None and self.build_tree is None

    def check(self, *, thoroughly: bool = False) -> None:
        """Raise DamagedError where a file is not what was stored (see Checksum.fits).

        Of the modules, which are thousands, only their index is looked at unless `thoroughly`.
        """
        for name, checksum in self.record.files.items():
            if not thoroughly and name.endswith(_MODULE_NAMES):
                continue
            if not checksum.matches(self.folder / name, thoroughly=thoroughly):
                raise DamagedError(
                    f"the cached kernel {self.record.release} is damaged: {self.folder / name}"
                )


class KernelReference(msgspec.Struct, frozen=True, kw_only=True):
    """Which stored kernel a specification stands for on one architecture, until asked anew.

    recipe: what it was made by; with another, the specification stands for another kernel.
    """

    key: str
    spec: str
    arch: str
    recipe: str = ""


def _name_of(spec: str, arch: str) -> str:
    """The name keeps the specification readable; the hash keeps two that look alike apart."""
    readable = "".join(c if c.isalnum() or c in "._+-" else "_" for c in spec)[:80]
    return f"{readable}-{arch}-{key_of([spec], 8)}"


def find(spec: str, arch: str, recipe: str) -> Kernel | None:
    """The kernel that `spec` was last resolved to, if it is stored and was made by this recipe.

    Raises DamagedError where it is there and is not what was stored.
    """
    try:
        content = KERNELS.read_reference(_name_of(spec, arch)) or b""
        reference = msgspec.json.decode(content, type=KernelReference)
    except msgspec.MsgspecError:
        return None
    return load(reference.key) if reference.recipe == recipe else None


def load(key: str) -> Kernel | None:
    """The kernel of this key, if it is stored; DamagedError where it is damaged."""
    record = KERNELS.read(key, KernelRecord)
    if record is None:
        return None
    kernel = Kernel(folder=KERNELS.path(key), record=record)
    kernel.check()
    return kernel


def build_tree_of(key: str) -> Path | None:
    """Where the kernel of this key, damaged or not, was built; None where that is gone."""
    try:
        record = KERNELS.read(key, KernelRecord)
    except DamagedError:
        return None
    return Kernel(folder=KERNELS.path(key), record=record).build_tree if record else None


def write_record(folder: Path, record: KernelRecord) -> None:
    """Write the record of a kernel whose files lie in `folder`, with their checksums."""
    files = {
        str(path.relative_to(folder)): checksum_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    complete = msgspec.structs.replace(record, files=files)
    (folder / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(complete)))


def write_reference(spec: str, arch: str, recipe: str, key: str) -> None:
    """Remember that `spec` on `arch` means the kernel of this key; HostError where it cannot."""
    reference = KernelReference(key=key, spec=spec, arch=arch, recipe=recipe)
    KERNELS.write_reference(_name_of(spec, arch), msgspec.json.encode(reference))


def references() -> Iterator[KernelReference]:
    """Every specification that was resolved."""
    for _, content in KERNELS.references():
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(content, type=KernelReference)
