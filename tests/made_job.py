"""Makes jobs of cells without a kernel or an image."""

from typing import Any

from quizmatrix.model.job import CellJob, JobMachine
from quizmatrix.model.spec import GuestCommand, GuestFiles, GuestKernel, GuestLimits, Labels, Share


def job(arch: str = "s390x", **more: Any) -> CellJob:
    """A job; `more`: fields of its parts."""

    def part(kind: Any, **fields: Any) -> Any:
        known = set(kind.__struct_fields__) & more.keys()
        return kind(**(fields | {name: more.pop(name) for name in known}))

    made = CellJob(
        labels=part(Labels, cell=f"6.1-{arch}", kernel="6.1", release="6.1.9"),
        machine=part(JobMachine, arch=arch, memory=512, cpus=2),
        kernel=part(GuestKernel, key="key", image="kernels/key/image", initramfs="initramfs/i.cpio"),
        files=part(GuestFiles, folder="", layers=[Share(tag="kernel", path="kernels/key/layer")]),
        command=part(GuestCommand, words=["true"]),
        profiles=more.pop("uses", ()),
        limits=part(GuestLimits, timeout=60.0, boot_timeout=30.0),
    )
    assert not more
    return made
