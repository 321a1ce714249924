"""The trial boot with KVM, with real QEMU processes: on hosts where KVM works and where it does not."""

import os
from pathlib import Path

import anyio
import msgspec
import pytest

from quizmatrix.model.arch import Accelerator, host_arch
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits
from quizmatrix.model.task import Task, trial_of
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared, job_of
from quizmatrix.run import accelerator
from tests.vm.conftest import KERNEL


async def real() -> tuple[Task, Prepared]:
    (cell,) = cells_on_the_spot([f"{KERNEL}-{host_arch().name}"], Limits())
    return trial_of(cell), await Preparer(Policy()).prepare(cell, lambda _text: None)


def test_a_kernel_that_panics_is_not_taken_for_a_kvm_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.access(accelerator.KVM_DEVICE, os.R_OK | os.W_OK):
        pytest.skip(f"there is no {accelerator.KVM_DEVICE} to try")
    task, prepared = anyio.run(real)
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path))
    (tmp_path / "empty").touch()
    # Its kernel finds no init, under KVM and emulated.
    broken = msgspec.structs.replace(prepared, initramfs=tmp_path / "empty")
    answer = anyio.run(accelerator.try_kvm, job_of(task, broken))
    assert (answer.accelerator, answer.is_known) == (Accelerator.TCG, False), answer
    assert accelerator.recall(host_arch()) is None
    answer = anyio.run(accelerator.try_kvm, job_of(task, prepared))
    assert answer.is_known, answer
    assert accelerator.recall(host_arch()) == answer
    assert answer.accelerator is Accelerator.KVM or "KVM ran no guest" in answer.why
