"""Kernels in the cache: stored by content, found by what was asked for, and checked before use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quizmatrix.core.checksum import Checksum, checksum_of
from quizmatrix.core.errors import DamagedError
from quizmatrix.core.store import Store, key_of
from quizmatrix.kernel import buildtree, drivers
from quizmatrix.kernel.buildtree import BuildTree
from quizmatrix.model.arch import DiskBus
from quizmatrix.model.kconfig import Wish

SCHEMA = 1

RECORD = "kernel.json"
# The checksums of its modules. There are thousands, and every run reads the record.
_MODULES = "modules.json"

KERNELS = Store(
    what="kernel",
    folder="kernels",
    record=f"{{}}/{RECORD}",
    reference="refs/{}.json",
    lock="kernel-{}",
)

# Debug information of ready-made kernels, by the kernels' keys.
DEBUG_INFO = Store(what="debug information", folder="debug-information", lock="debug-information-{}")
VMLINUX = "vmlinux"

# The files of a kernel's folder.
IMAGE = "image"
LAYER = "layer"
CONFIG = "config"
SYSTEM_MAP = "System.map"
MODULE_NAMES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")

# In the configuration of a kernel that counts which of its lines run.
_COUNTING_ALL = "CONFIG_GCOV_PROFILE_ALL=y"
_COUNTING = frozenset({"CONFIG_GCOV_KERNEL=y", "CONFIG_CC_IS_GCC=y"})

# A file in a build folder: the key of the kernel that was built there last.
BUILD_STAMP = "quizmatrix.key"


class KernelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a stored kernel (its kernel.json).

    key: names the content that it was made from. version: the upstream version. release: what `uname -r`
    prints. packages: where it came from, for a person. files: the checksums of its files, but for its
    modules. For a kernel that was built here: wishes: the requested configuration; build: the folder it was
    built in; make: the arguments of make(1).
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
        """The file for QEMU's -kernel."""
        return self.folder / IMAGE

    @property
    def layer(self) -> Path:
        """The kernel layer, which holds usr/lib/modules/RELEASE."""
        return self.folder / LAYER

    @property
    def modules(self) -> Path:
        """The folder of the kernel's modules and their index."""
        return self.layer / "usr/lib/modules" / self.record.release

    @property
    def has_9p(self) -> bool:
        """Whether the kernel can mount folders of the host over virtio-9p."""
        return drivers.has(drivers.NINE_P, self.config, self.modules)

    @property
    def disk_drivers(self) -> tuple[str, ...]:
        """The drivers by which its guests get disks: virtio's or SCSI's."""
        return drivers.for_disks(self.config, self.modules)

    @property
    def layer_bus(self) -> DiskBus:
        """The kind of those disks."""
        return DiskBus.SCSI if self.disk_drivers == drivers.SCSI_DISKS else DiskBus.VIRTIO

    @property
    def config(self) -> str:
        """The text of its configuration."""
        return (self.folder / CONFIG).read_text(encoding="utf-8")

    @property
    def counts_lines(self) -> bool:
        """Whether it has gcov, which counts how often lines of it, or of modules, run; and that of GCC."""
        return {*self.config.splitlines()} >= _COUNTING

    @property
    def counts_own_lines(self) -> bool:
        """Whether it counts its own lines, and not only those of modules that are built for that."""
        return _COUNTING_ALL in self.config.splitlines()

    @property
    def build_tree(self) -> BuildTree | None:
        """What external modules are built against; None where the cache does not have it.

        The folder of a build may be gone, or now hold another kernel; a ready-made kernel's tree is fetched
        when it is needed.
        """
        if self.record.build is None:
            return buildtree.find(self.record.key)
        folder = Path(self.record.build)
        try:
            is_ours = (folder / BUILD_STAMP).read_text() == self.record.key
        except OSError:
            return None
        if not is_ours:
            return None
        source = (folder / "source").resolve()
        vmlinux = folder / VMLINUX
        return BuildTree(folder=folder, source=source, make=self.record.make, vmlinux=vmlinux)

    @property
    def symbols(self) -> Path | None:
        """Its vmlinux with symbols, and with debug information where it was built with that.

        None where the cache does not have it: Debian's is fetched when it is asked for.
        """
        if self.record.build is None:
            vmlinux = DEBUG_INFO.path(self.record.key) / VMLINUX
            return vmlinux if vmlinux.exists() else None
        tree = self.build_tree
        return tree.vmlinux if tree else None

    def check(self, *, thoroughly: bool = False) -> None:
        """Raise DamagedError where a file has changed since it was stored (see Checksum.fits).

        thoroughly: also check the modules. There are thousands, so by default only their index is checked.
        """
        files = self.record.files | (self._modules() if thoroughly else {})
        for name, checksum in files.items():
            # Kernels that were stored before 2026-12 have their modules in the record.
            if name.endswith(MODULE_NAMES) and not thoroughly:
                continue
            if not checksum.matches(self.folder / name, thoroughly=thoroughly):
                raise DamagedError(
                    f"the cached kernel {self.record.release} is damaged: {self.folder / name}"
                )

    def _modules(self) -> dict[str, Checksum]:
        if _MODULES not in self.record.files:
            return {}
        path = self.folder / _MODULES
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Checksum])
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedError(f"the cached kernel {self.record.release} is damaged: {path}") from error


class KernelReference(msgspec.Struct, frozen=True, kw_only=True):
    """The stored kernel that a specification means on one architecture, until the source is asked again.

    recipe: how the kernel was made; a reference with another recipe is not used.
    """

    key: str
    spec: str
    arch: str
    recipe: str = ""


def _name_of(spec: str, arch: str) -> str:
    """The name of a reference: the readable specification, and a hash to tell similar ones apart."""
    readable = "".join(c if c.isalnum() or c in "._+-" else "_" for c in spec)[:80]
    return f"{readable}-{arch}-{key_of([spec], 8)}"


def find(spec: str, arch: str, recipe: str) -> Kernel | None:
    """The kernel that `spec` was last resolved to, if it is stored and was made by this recipe.

    Raises DamagedError where its files have changed since they were stored.
    """
    try:
        content = KERNELS.read_reference(_name_of(spec, arch)) or b""
        reference = msgspec.json.decode(content, type=KernelReference)
    except msgspec.MsgspecError:
        return None
    return load(reference.key) if reference.recipe == recipe else None


def is_known(spec: str, arch: str) -> bool:
    """Whether `spec` was ever resolved on `arch`."""
    return KERNELS.reference_of(_name_of(spec, arch)).is_file()


def load(key: str) -> Kernel | None:
    """The kernel with this key; None where it is not stored. Raises DamagedError where it is damaged."""
    record = KERNELS.read(key, KernelRecord)
    if record is None:
        return None
    kernel = Kernel(folder=KERNELS.path(key), record=record)
    kernel.check()
    return kernel


def build_folder_of(key: str) -> Path | None:
    """The folder in which the kernel with this key was built; None where it is gone, or was never here."""
    try:
        record = KERNELS.read(key, KernelRecord)
    except DamagedError:
        return None
    if record is None or record.build is None:
        return None
    tree = Kernel(folder=KERNELS.path(key), record=record).build_tree
    return tree.folder if tree else None


def write_record(folder: Path, record: KernelRecord) -> None:
    """Write the record of the kernel whose files are in `folder`, with their checksums."""
    files = {
        str(path.relative_to(folder)): checksum_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    modules = {name: checksum for name, checksum in files.items() if name.endswith(MODULE_NAMES)}
    (folder / _MODULES).write_bytes(msgspec.json.encode(modules))
    others = {name: checksum for name, checksum in files.items() if name not in modules}
    others[_MODULES] = checksum_of(folder / _MODULES)
    complete = msgspec.structs.replace(record, files=others)
    (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(complete)))


def write_reference(spec: str, arch: str, recipe: str, key: str) -> None:
    """Record that `spec` on `arch` means the kernel with this key. Raises HostError where writing fails."""
    reference = KernelReference(key=key, spec=spec, arch=arch, recipe=recipe)
    KERNELS.write_reference(_name_of(spec, arch), msgspec.json.encode(reference))


def references() -> Iterator[KernelReference]:
    """All specifications that were resolved."""
    for _, content in KERNELS.references():
        with contextlib.suppress(msgspec.MsgspecError):
            yield msgspec.json.decode(content, type=KernelReference)
