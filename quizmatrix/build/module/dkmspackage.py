"""The DKMS package that a module was when it was built for a kernel, and where it was built."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.build.module.module import Module
from quizmatrix.kernel.artifact import Kernel

# Where dkms(8) builds; in the sandbox it is there.
DKMS_TREE = "/var/lib/dkms"


class DkmsPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package that is built for a kernel, and the folder where that was done."""

    name: str
    version: str
    folder: Path

    def encode(self) -> bytes:
        """Its name and version, to be kept."""
        return f"{self.name}\n{self.version}".encode()

    @staticmethod
    def decode(kept: bytes, folder: Path) -> DkmsPackage:
        """The package whose name and version were kept."""
        name, _, version = kept.decode().partition("\n")
        return DkmsPackage(name=name, version=version, folder=folder)

    def place(self, tree: str = DKMS_TREE) -> str:
        """Where it is built, in the sandbox."""
        return f"{tree}/{self.name}/{self.version}/build"


def record_of(module: Module, kernel: Kernel) -> Path:
    """The file with the package that a module was when it was built for this kernel. It may not exist."""
    return module.work / f"{kernel.record.key}.package"


def load(module: Module, kernel: Kernel) -> DkmsPackage | None:
    """The package that a module was then; None where it was none."""
    try:
        return DkmsPackage.decode(record_of(module, kernel).read_bytes(), module.copy(kernel).resolve())
    except FileNotFoundError:
        return None
