"""Makes specifications of cells without a kernel or an image."""

from pathlib import Path
from typing import Any

from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.spec import (
    CellSpec,
    GuestCommand,
    GuestFiles,
    GuestKernel,
    GuestLimits,
    GuestMachine,
    Kept,
    Labels,
    Share,
    WorkTree,
)


def spec(folder: Path = Path("/f"), arch: str = "s390x", **more: Any) -> CellSpec:
    """A specification; `more`: fields of its parts."""

    def part(kind: Any, **fields: Any) -> Any:
        known = set(kind.__struct_fields__) & more.keys()
        return kind(**(fields | {name: more.pop(name) for name in known}))

    made = CellSpec(
        labels=part(Labels, cell=f"6.1-{arch}", kernel="6.1", release="6.1.9"),
        machine=part(
            GuestMachine,
            arch=load_arch(arch),
            accelerator=Accelerator.TCG,
            kernel=part(GuestKernel, key="key", image="/cache/image", initramfs="/cache/i.cpio"),
            memory=512,
            cpus=2,
        ),
        files=part(
            GuestFiles,
            folder=str(folder),
            layers=[Share(tag="kernel", path="/cache/layer")],
            work_tree=WorkTree(path="/home/me/a, b"),
        ),
        command=part(GuestCommand, words=["true"]),
        limits=part(GuestLimits, timeout=60.0, boot_timeout=30.0),
        keeps=part(Kept),
    )
    assert not more
    return made
