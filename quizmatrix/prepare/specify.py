"""Makes a cell's job from the cell, its artifacts and the options of the run."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import msgspec

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.store import name_of
from quizmatrix.core.version import series_of
from quizmatrix.image.artifact import Image
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model import profile, suites
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import Cell
from quizmatrix.model.job import CellJob, JobMachine
from quizmatrix.model.known import KnownFailure
from quizmatrix.model.spec import (
    BASE_DISK,
    USER_LAYER,
    Bind,
    BuiltFrom,
    CellSpec,
    CommandLine,
    Disk,
    GuestCommand,
    GuestFiles,
    GuestKernel,
    GuestLimits,
    Kept,
    Labels,
    Session,
    Share,
    WorkTree,
)
from quizmatrix.model.start import StartKind
from quizmatrix.model.task import Task
from quizmatrix.model.testchoice import NOTHING_TOLD, TestChoice
from quizmatrix.prepare.currentfolder import other_names
from quizmatrix.run.place import specification


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's artifacts.

    built_from: where its OpenZFS is from, if one of its profiles needs that. has_sshd: whether a terminal can
    reach its guest over SSH.
    """

    kernel: Kernel
    build_layers: list[Path] = []
    image: Image
    initramfs: Path
    built_from: BuiltFrom | None = None
    has_sshd: bool = False


class GuestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a run that are the same for every guest.

    layers: host folders, the lowest first.
    work_tree: the folder in which the command runs. typed: its path in the user's shell, if that is another.
    machine, qemu, start: `type`, `qemu_words` and `start` of GuestMachine.
    keeps: of CellSpec.
    The other fields are those of GuestFiles, GuestCommand and GuestLimits.
    """

    layers: list[Path] = []
    binds: list[Bind] = []
    work_tree: str | None = None
    typed: str | None = None
    environment: dict[str, str] = {}
    passed_on: list[str] = []
    user: str | None = None
    stdin: str | None = None
    machine: str | None = None
    qemu: list[str] = []
    start: StartKind | None = None
    keeps: Kept = Kept()


# The settings of guests that are not a user's.
NOTHING_MORE = GuestPlan()


def job_of(
    task: Task,
    prepared: Prepared,
    asked: GuestPlan = NOTHING_MORE,
    *,
    accelerator: Accelerator | None = None,
    tests: TestChoice = NOTHING_TOLD,
    session: Session | None = None,
    matrix: str | None = None,
    again: CommandLine | None = None,
) -> CellJob:
    """The job of `task`. accelerator: see JobMachine. tests: what the command is told about its tests.

    Raises UnpreparedError if a suite is missing, or the kernel counts no lines.
    """
    cell = task.cell
    if asked.keeps.counters:
        _check_counting(prepared.kernel)
    return CellJob(
        labels=Labels(
            cell=cell.id,
            kernel=cell.kernel,
            release=prepared.kernel.record.release,
            variant=cell.variant,
            task=task.labels,
            matrix=matrix,
            again=again,
            built_from=prepared.built_from,
        ),
        machine=_machine(cell, asked, accelerator),
        kernel=_kernel(cell, prepared),
        files=_files(task, prepared, asked),
        command=_command(task, asked, session, tests),
        profiles=cell.profiles,
        own_profiles=profile.own_without_host_half(use.name for use in cell.profiles),
        limits=GuestLimits(
            timeout=cell.timeout,
            boot_timeout=cell.boot_timeout,
            tolerance=cell.tolerance,
            known=list(cell.known),
            known_quietly=_known_to_profiles(cell),
        ),
        keeps=asked.keeps,
    )


def _known_to_profiles(cell: Cell) -> list[KnownFailure]:
    known = chain.from_iterable(profile.known_by(use.name) for use in cell.profiles)
    return [one for one in known if one.is_for(cell.kernel, cell.arch, cell.variant)]


async def specify(
    task: Task,
    prepared: Prepared,
    accelerator: Accelerator,
    *,
    folder: Path,
    asked: GuestPlan = NOTHING_MORE,
) -> CellSpec:
    """The specification of `task` on this host. This runs the host halves of the cell's profiles.

    folder: the cell's folder, which exists. Raises the errors of `job_of`, and UnpreparedError if a profile
    cannot be set up.
    """
    return await specification(job_of(task, prepared, asked), accelerator, folder=folder)


def _check_counting(kernel: Kernel) -> None:
    """Raise UnpreparedError where a kernel cannot count which of its lines run."""
    if not kernel.counts_lines:
        raise UnpreparedError(
            f"the kernel {kernel.record.release} does not count which lines run",
            cause="it was built without CONFIG_GCOV_KERNEL, or by clang",
            next_step=f"--only debian-source:{series_of(kernel.record.version)}-{kernel.record.arch}+gcov"
            " has it; +gcov_modules counts those of modules alone.",
        )


def _command(task: Task, asked: GuestPlan, session: Session | None, tests: TestChoice) -> GuestCommand:
    shard = task.cell.shard
    return GuestCommand(
        words=task.command,
        environment=asked.environment | (shard.environment if shard else {}),
        passed_on=asked.passed_on,
        user=asked.user,
        stdin=asked.stdin,
        session=session,
        tests=tests,
    )


def _machine(cell: Cell, asked: GuestPlan, accelerator: Accelerator | None) -> JobMachine:
    return JobMachine(
        arch=cell.arch,
        memory=cell.memory,
        cpus=cell.cpus,
        numa=cell.numa,
        type=asked.machine,
        qemu_words=asked.qemu,
        start=asked.start,
        accelerator=accelerator,
    )


def _kernel(cell: Cell, prepared: Prepared) -> GuestKernel:
    kernel, symbols = prepared.kernel, prepared.kernel.symbols
    return GuestKernel(
        key=kernel.record.key,
        version=kernel.record.version,
        image=name_of(kernel.image),
        initramfs=name_of(prepared.initramfs),
        symbols=name_of(symbols) if symbols else None,
        parameters=cell.append,
        has_9p=kernel.has_9p,
        layer_bus=kernel.layer_bus,
    )


def _files(task: Task, prepared: Prepared, asked: GuestPlan) -> GuestFiles:
    base = prepared.image.disk
    bus = prepared.kernel.layer_bus
    return GuestFiles(
        folder="",
        base=task.cell.image,
        layers=_layers(prepared, asked.layers),
        work_tree=_work_tree(asked, task.command),
        binds=[*asked.binds, *_suites(task.cell)],
        disks=[Disk(serial=BASE_DISK, path=name_of(base), writable=False, bus=bus)] if base else [],
        shared_limit=task.cell.shared_limit,
    )


def _layers(prepared: Prepared, users: list[Path]) -> list[Share]:
    """The layers between the base layer and the run layer: kernel modules, build results, the user's."""
    shares = [Share(tag="kernel", path=name_of(prepared.kernel.layer))]
    shares += [Share(tag=buildlayer.tag_of(layer), path=name_of(layer)) for layer in prepared.build_layers]
    shares += [Share(tag=f"{USER_LAYER}{number}", path=str(layer)) for number, layer in enumerate(users)]
    return shares


def _suites(cell: Cell) -> list[Bind]:
    """The folders of the suites that the cell's profiles run. Raises UnpreparedError where one is missing."""
    found = []
    for use in cell.profiles:
        folder = dict(cell.suites).get(use.name)
        if folder is None:
            continue
        if not Path(folder).is_dir():
            raise UnpreparedError(
                f"there is no folder {folder}",
                cause=f"the matrix says that the suite {use.name} is there",
                next_step=f"Change its key `suite.{use.name}`.",
            )
        found.append(Bind(path=folder, guest=dict(use.options)[suites.ROOT], writable=False))
    return found


def _work_tree(asked: GuestPlan, command: list[str]) -> WorkTree | None:
    if asked.work_tree is None:
        return None
    links = other_names(asked.work_tree, command, asked.typed)
    return WorkTree(path=asked.work_tree, typed=asked.typed, links=links)
