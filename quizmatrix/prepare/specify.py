"""Makes a cell's specification from the cell, its artifacts and the options of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.version import series_of
from quizmatrix.image.artifact import Image
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model import profile, suites
from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.cells import Cell
from quizmatrix.model.forward import with_free_port
from quizmatrix.model.profile import Use
from quizmatrix.model.spec import (
    BASE_DISK,
    ActiveProfile,
    Bind,
    BuiltFrom,
    CellSpec,
    CommandLine,
    Disk,
    GuestCommand,
    GuestDebugger,
    GuestFiles,
    GuestKernel,
    GuestLimits,
    GuestMachine,
    GuestNetwork,
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
from quizmatrix.run.cellfolder import host_folder_of
from quizmatrix.run.emulator import is_one_thread

if TYPE_CHECKING:
    from quizmatrix.prepare.hosthalf import HostHalf

# The time limit, in seconds, of a guest that waits for a debugger.
_DEBUGGED = 86400.0


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


class _Profiles(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's profiles after their host halves have run. user: the first one that a profile names."""

    active: list[ActiveProfile]
    disks: list[Disk]
    network: GuestNetwork | None
    debugger: GuestDebugger | None
    user: str | None


async def specify(
    task: Task,
    prepared: Prepared,
    accelerator: Accelerator,
    *,
    folder: Path,
    asked: GuestPlan = NOTHING_MORE,
    disks: Sequence[Disk] = (),
    tests: TestChoice = NOTHING_TOLD,
    session: Session | None = None,
    matrix: str | None = None,
    again: CommandLine | None = None,
) -> CellSpec:
    """The specification of one attempt at `task`. This runs the host halves of the cell's profiles.

    folder: the cell's folder, which exists. disks: those that cells hand on. tests: what the command is told
    about its tests.
    Raises UnpreparedError if a profile cannot be set up, a suite is missing, or the kernel counts no lines.
    """
    cell = task.cell
    if asked.keeps.counters:
        _check_counting(prepared.kernel)
    profiles = await _set_up(cell, folder)
    machine = _machine(cell, prepared, accelerator, profiles, asked)
    is_waiting = machine.debugger is not None and machine.debugger.waits
    factor = machine.timeout_factor
    return CellSpec(
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
        machine=machine,
        files=_files(task, prepared, folder, [*disks, *profiles.disks], asked),
        command=_command(task, profiles, asked, session, tests),
        limits=GuestLimits(
            timeout=factor * (_DEBUGGED if is_waiting else cell.timeout),
            boot_timeout=factor * (_DEBUGGED if is_waiting else cell.boot_timeout),
            tolerance=cell.tolerance,
            known=list(cell.known),
        ),
        keeps=asked.keeps,
    )


def _check_counting(kernel: Kernel) -> None:
    """Raise UnpreparedError where a kernel cannot count which of its lines run."""
    if not kernel.counts_lines:
        raise UnpreparedError(
            f"the kernel {kernel.record.release} does not count which lines run",
            cause="it was built without CONFIG_GCOV_KERNEL, or by clang",
            next_step=f"--only debian-source:{series_of(kernel.record.version)}-{kernel.record.arch}+gcov"
            " has it; +gcov_modules counts those of modules alone.",
        )


def _command(
    task: Task, profiles: _Profiles, asked: GuestPlan, session: Session | None, tests: TestChoice
) -> GuestCommand:
    shard = task.cell.shard
    return GuestCommand(
        words=task.command,
        profiles=profiles.active,
        environment=asked.environment | (shard.environment if shard else {}),
        passed_on=asked.passed_on,
        user=asked.user or profiles.user,
        stdin=asked.stdin,
        session=session,
        tests=tests,
    )


def _machine(
    cell: Cell, prepared: Prepared, accelerator: Accelerator, profiles: _Profiles, asked: GuestPlan
) -> GuestMachine:
    kernel, symbols = prepared.kernel, prepared.kernel.symbols
    arch = load_arch(cell.arch)
    return GuestMachine(
        arch=arch,
        accelerator=accelerator,
        kernel=GuestKernel(
            key=kernel.record.key,
            version=kernel.record.version,
            image=str(kernel.image),
            initramfs=str(prepared.initramfs),
            symbols=str(symbols) if symbols else None,
            parameters=cell.append,
            has_9p=kernel.has_9p,
            layer_bus=kernel.layer_bus,
        ),
        memory=cell.memory,
        cpus=cell.cpus,
        numa=cell.numa,
        network=profiles.network,
        debugger=profiles.debugger,
        type=asked.machine,
        qemu_words=asked.qemu,
        start=asked.start,
        one_thread=is_one_thread(arch, accelerator, cell.cpus),
    )


def _files(task: Task, prepared: Prepared, folder: Path, disks: list[Disk], asked: GuestPlan) -> GuestFiles:
    base = prepared.image.disk
    bus = prepared.kernel.layer_bus
    base_disk = [Disk(serial=BASE_DISK, path=str(base), writable=False, bus=bus)] if base else []
    return GuestFiles(
        folder=str(folder),
        base=task.cell.image,
        layers=_layers(prepared, asked.layers),
        work_tree=_work_tree(asked, task.command),
        binds=[*asked.binds, *_suites(task.cell)],
        disks=[*base_disk, *disks],
        shared_limit=task.cell.shared_limit,
    )


def _layers(prepared: Prepared, users: list[Path]) -> list[Share]:
    """The layers between the base layer and the run layer: kernel modules, build results, the user's."""
    shares = [Share(tag="kernel", path=str(prepared.kernel.layer))]
    shares += [Share(tag=buildlayer.tag_of(layer), path=str(layer)) for layer in prepared.build_layers]
    return shares + [Share(tag=f"user{number}", path=str(layer)) for number, layer in enumerate(users)]


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


async def _set_up(cell: Cell, folder: Path) -> _Profiles:
    """Run the host halves of the cell's profiles. Raises UnpreparedError if one fails."""
    uses = cell.profiles
    facts = [profile.facts_of(use.name, cell.id) for use in uses]
    halves: list[HostHalf] = []
    if uses:
        from quizmatrix.prepare import hosthalf

        own = host_folder_of(folder)
        halves = [
            await hosthalf.set_up(use, cell=cell.id, arch=cell.arch, folder=own / use.name) for use in uses
        ]
    forwards = [with_free_port(forward) for use in uses for forward in profile.forwards_of(use, cell.id)]
    waits = any(half.stopped for half in halves)
    return _Profiles(
        active=[_active(use, half) for use, half in zip(uses, halves, strict=True)],
        disks=[Disk(**msgspec.structs.asdict(disk)) for half in halves for disk in half.disks],
        network=GuestNetwork(forwards=forwards) if any(one.network for one in facts) else None,
        debugger=GuestDebugger(waits=waits) if any(one.debugger for one in facts) else None,
        user=next((half.user for half in halves if half.user), None),
    )


def _active(use: Use, half: HostHalf) -> ActiveProfile:
    """The guest half of a profile, with what its host half added."""
    folder = profile.folders()[use.name]
    init, files = folder / "init", folder / "files"
    return ActiveProfile(
        name=use.name,
        asked=use.asked,
        environment=use.environment | half.environment,
        init=init.read_text(encoding="utf-8") if init.is_file() else "",
        files=str(files) if files.is_dir() else None,
        texts=half.files,
    )
