"""Chooses each guest's accelerator by booting one: a /dev/kvm that opens may still run no guest.

On some hosts QEMU aborts on a model-specific register, on others the guest loops for ever before its kernel
starts. Both kinds of host have a /dev/kvm that answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.json import to_json
from quizmatrix.model.arch import Accelerator, Arch, load_arch
from quizmatrix.model.job import CellJob
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import CellSpec, GuestCommand, GuestFiles, GuestLimits
from quizmatrix.model.start import StartKind
from quizmatrix.run.cell import run_cell
from quizmatrix.run.place import specification

KVM_DEVICE = Path("/dev/kvm")

# Seconds for the first trial boot under KVM. On an idle host a guest needs one or two.
TRIAL_LIMIT = 10.0
# The limit of the second trial, as a multiple of the time under emulation, since the host may be busy.
_TIMES_EMULATED = 2.0

# Seconds for which the answer "KVM runs no guest" holds: another hypervisor may have been using KVM.
_NO_LASTS = 86400.0

# Boots a specification to its result.
RunTrial = Callable[[CellSpec], Awaitable[CellResult]]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The accelerator for one architecture on this host.

    why: the reason, in one line. detail: why the trial boot failed. host: the state of the host for which the
    answer holds. when: seconds since the epoch. is_known: whether the answer holds for all guests; if not, it
    is for one kernel only, and is not saved.
    """

    accelerator: Accelerator
    why: str
    detail: str = ""
    host: str = ""
    when: float = 0.0
    is_known: bool = True


def without_trial(arch: Arch) -> Answer | None:
    """The answer where no trial boot is needed, or an earlier one was saved; else None."""
    if not arch.is_native:
        return Answer(
            accelerator=Accelerator.TCG,
            why=f"{arch.name} is emulated on this {os.uname().machine} host",
        )
    if not KVM_DEVICE.exists():
        return Answer(accelerator=Accelerator.TCG, why=f"there is no {KVM_DEVICE}")
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Answer(
            accelerator=Accelerator.TCG,
            why=f"{KVM_DEVICE} may not be opened (join its group: sudo usermod -aG kvm $USER)",
        )
    return recall(arch)


def recall(arch: Arch) -> Answer | None:
    """The saved answer of an earlier trial, if it still holds."""
    try:
        answer = msgspec.json.decode(_remembered(arch).read_bytes(), type=Answer)
    except (OSError, msgspec.MsgspecError):
        return None
    lasts = answer.accelerator is Accelerator.KVM or 0 <= time.time() - answer.when < _NO_LASTS
    return answer if lasts and answer.host == _host(arch) else None


async def find_out(job: CellJob) -> Answer:
    """The accelerator for guests like that of `job`, from a trial boot if needed. Raises try_kvm's errors."""
    return without_trial(load_arch(job.machine.arch)) or await try_kvm(job)


async def try_kvm(job: CellJob, boot: RunTrial = run_cell) -> Answer:
    """Boot the kernel and image of `job` under KVM, run `true`, and save whether that worked.

    If the guest does not come up, its kernel may be broken, or the host busy. So it is booted under
    emulation, and then under KVM once more with a longer limit; KVM is at fault only if the emulated guest
    came up and the second one did not. This takes at most half a minute on an idle host. Raises
    QuizmatrixError where no trial is possible.
    """
    arch = load_arch(job.machine.arch)
    import tempfile

    with tempfile.TemporaryDirectory(prefix="quizmatrix-") as folder:
        trial = _Trial(job, boot, Path(folder))
        first = await trial.boot(Accelerator.KVM, TRIAL_LIMIT)
        if _is_up(first):
            return _remember(arch, _kvm_works(first))
        emulated = await trial.boot(Accelerator.TCG, job.limits.boot_timeout)
        if not _is_up(emulated):
            return Answer(
                accelerator=Accelerator.TCG,
                why=f"{job.labels.cell} boots neither under KVM nor emulated, which tells nothing of KVM",
                detail=first.detail,
                is_known=False,
            )
        limit = max(TRIAL_LIMIT, _TIMES_EMULATED * (emulated.timings.boot or 0))
        second = await trial.boot(Accelerator.KVM, limit)
    if _is_up(second):
        return _remember(arch, _kvm_works(second))
    return _remember(
        arch,
        Answer(
            accelerator=Accelerator.TCG,
            why=f"{KVM_DEVICE} opens, but KVM ran no guest ({second.detail.partition(': ')[0]})",
            detail=second.detail,
        ),
    )


class _Trial:
    """Boots a job's guest for a trial, without the user's profiles and options."""

    def __init__(self, job: CellJob, boot: RunTrial, folder: Path) -> None:
        self._job = _plain(job)
        self._boot = boot
        self._folder = folder
        self._number = 0

    async def boot(self, accelerator: Accelerator, limit: float) -> CellResult:
        """Boot the guest once and run `true`. limit: seconds to boot, on hardware."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        limits = GuestLimits(timeout=TRIAL_LIMIT, boot_timeout=limit)
        job = msgspec.structs.replace(self._job, limits=limits)
        return await self._boot(await specification(job, accelerator, folder=folder))


def _plain(job: CellJob) -> CellJob:
    """The job that runs `true` in the same guest, without anything that the user may have added to it."""
    replace = msgspec.structs.replace
    layers = [layer for layer in job.files.layers if not layer.is_users]
    return CellJob(
        labels=job.labels,
        # A trial is a boot: what is restored from a template has shown that it works.
        machine=replace(job.machine, numa=1, type=None, qemu_words=[], start=StartKind.COLD),
        kernel=replace(job.kernel, parameters=""),
        files=GuestFiles(folder="", base=job.files.base, layers=layers, disks=job.files.disks),
        command=GuestCommand(words=["true"]),
        limits=job.limits,
    )


def _is_up(result: CellResult) -> bool:
    """Whether a program of the guest ran and reported to the host, whatever happened later."""
    return result.timings.boot is not None


def _kvm_works(result: CellResult) -> Answer:
    return Answer(accelerator=Accelerator.KVM, why=f"KVM booted a guest in {result.timings.boot or 0:.1f} s")


def _remember(arch: Arch, answer: Answer) -> Answer:
    answer = msgspec.structs.replace(answer, host=_host(arch), when=time.time())
    # If it cannot be written, the next run makes its own trial.
    with suppress(OSError):
        path = _remembered(arch)
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write_atomic(path, to_json(answer))
    return answer


def forget() -> None:
    """Delete the saved answers, so that the next run tries KVM again."""
    for path in (paths.cache_dir() / "accelerator").glob("*.json"):
        path.unlink(missing_ok=True)


def _remembered(arch: Arch) -> Path:
    return paths.cache_dir() / "accelerator" / f"{arch.name}.json"


def _host(arch: Arch) -> str:
    """The state of the host for which an answer holds: host name, kernel, CPU, QEMU, machine and CPU type.

    QEMU is identified by its file's size and mtime, since asking for its version would cost time in every
    run.
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
    return " | ".join((os.uname().nodename, os.uname().release, cpu, made, asked))
