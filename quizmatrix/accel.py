"""Which accelerator a guest gets: decided by booting one, since a /dev/kvm that opens may run none.

There are hosts where QEMU aborts on a model-specific register, and hosts where the guest spins
for ever before its kernel starts; both have a /dev/kvm that answers.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path

import msgspec

from quizmatrix import paths, process, run
from quizmatrix import spec as specs
from quizmatrix.arch import Accelerator, Arch
from quizmatrix.errors import host_error
from quizmatrix.outcome import Outcome
from quizmatrix.spec import CellSpec

KVM_DEVICE = Path("/dev/kvm")

# Seconds the trial boot may take; a guest that KVM really runs is there in one or two.
TRIAL_LIMIT = 20.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out for one architecture: the accelerator, and why in one line.

    detail: what the trial boot died of. host: what the answer holds for.
    """

    accelerator: Accelerator
    why: str
    detail: str = ""
    host: str = ""


def without_trial(arch: Arch) -> Answer | None:
    """The answer where none is needed, or one is remembered; None where a trial boot has to tell."""
    if not arch.is_native:
        return Answer(
            accelerator=Accelerator.TCG,
            why=f"{arch.name} is emulated on this {platform.machine()} host",
        )
    if not KVM_DEVICE.exists():
        return Answer(accelerator=Accelerator.TCG, why=f"there is no {KVM_DEVICE}")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Answer(
            accelerator=Accelerator.TCG,
            why=f"{KVM_DEVICE} may not be opened (join its group: sudo usermod -aG kvm $USER)",
        )
    try:
        answer = msgspec.json.decode(_remembered(arch).read_bytes(), type=Answer)
    except (OSError, msgspec.MsgspecError):
        return None
    return answer if answer.host == _host(arch) else None


async def try_kvm(spec: CellSpec) -> Answer:
    """Boot `spec` under KVM, with `true` as its command, and remember whether that worked.

    Takes at most a few seconds over TRIAL_LIMIT. Raises QuizmatrixError where the trial itself
    is not possible.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="quizmatrix-") as folder:
        trial = msgspec.structs.replace(
            spec,
            accelerator=Accelerator.KVM,
            command=["true"],
            work_tree=None,
            boot_timeout=TRIAL_LIMIT,
            timeout=TRIAL_LIMIT,
            folder=folder,
        )
        result = await run.run_cell(trial)
    took = time.monotonic() - began
    if result.outcome in (Outcome.PASSED, Outcome.SPLAT):
        answer = Answer(
            accelerator=Accelerator.KVM,
            why=f"KVM booted a guest in {took:.1f} s",
            host=_host(spec.arch),
        )
    else:
        answer = Answer(
            accelerator=Accelerator.TCG,
            why=f"{KVM_DEVICE} opens, but KVM ran no guest ({result.detail.partition(': ')[0]})",
            detail=result.detail,
            host=_host(spec.arch),
        )
    try:
        path = _remembered(spec.arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write_atomic(path, specs.to_json(answer))
    except OSError as error:
        raise host_error("remember what KVM can do here", error) from error
    return answer


def forget() -> None:
    """Have the next run try KVM anew."""
    for path in (paths.cache_dir() / "accelerator").glob("*.json"):
        path.unlink(missing_ok=True)


def _remembered(arch: Arch) -> Path:
    return paths.cache_dir() / "accelerator" / f"{arch.name}.json"


def _host(arch: Arch) -> str:
    """What the answer holds for: this machine, its kernel, its processor, this very QEMU, and what
    it is asked for.

    QEMU is known by its file, since asking it for its version would cost every run.
    """
    cpu = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line for line in lines if line.startswith(("model name", "vendor_id"))), "")
    except OSError:
        pass
    binary = process.find_program(arch.facts.qemu.binary)
    made = ""
    if binary is not None:
        status = Path(binary).stat()
        made = f"{binary} {status.st_size} {status.st_mtime_ns}"
    facts = arch.facts.qemu
    asked = f"{facts.machine.kvm} {facts.cpu.kvm}"
    return " | ".join((platform.node(), platform.release(), cpu, made, asked))
