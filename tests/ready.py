"""Makes what the scheduler needs without a VM, for its tests and its benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quizmatrix.image.artifact import Image
from quizmatrix.kernel.artifact import Kernel, KernelRecord
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import Cell
from quizmatrix.model.job import CellJob
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared
from quizmatrix.run.accelerator import Answer


class Ready(Preparer):
    """A preparer whose artifacts exist, but cannot boot."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Policy(offline=True))
        record = KernelRecord(key="k", arch="s390x", version="6.1.9", release="6.1.9", packages=[])
        self._kernel = Kernel(folder=folder, record=record)
        (folder / "config").write_text("CONFIG_9P_FS=y\nCONFIG_NET_9P_VIRTIO=y\n")
        (folder / "layer").mkdir(exist_ok=True)

    async def prepare(self, cell: Cell, tell: Callable[[str], None]) -> Prepared:
        image = Image(key="i", archive=Path("/none"))
        return Prepared(kernel=self._kernel, image=image, initramfs=Path("/none"))

    async def accelerator_for(self, job: CellJob) -> Answer:
        return Answer(accelerator=Accelerator.TCG, why="a test")


def ended(spec: CellSpec, outcome: Outcome = Outcome.PASSED) -> CellResult:
    """The result of a guest with this outcome."""
    return CellResult(
        cell=spec.labels.cell,
        kernel=spec.labels.kernel,
        release="6.1.9",
        arch=spec.machine.arch.name,
        variant=None,
        accelerator=spec.machine.accelerator,
        outcome=outcome,
    )
