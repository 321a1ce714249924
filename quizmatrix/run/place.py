"""Makes a cell's specification from its job and from what this host adds to that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quizmatrix.core import store
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model import profile
from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.forward import with_free_port
from quizmatrix.model.job import CellJob
from quizmatrix.model.profile import Use
from quizmatrix.model.spec import (
    OWN_STDIN,
    ActiveProfile,
    CellSpec,
    Disk,
    GuestCommand,
    GuestDebugger,
    GuestFiles,
    GuestKernel,
    GuestLimits,
    GuestMachine,
    GuestNetwork,
)
from quizmatrix.run.cellfolder import host_folder_of
from quizmatrix.run.emulator import is_one_thread

if TYPE_CHECKING:
    from quizmatrix.run.hosthalf import HostHalf

# The time limit, in seconds, of a guest that waits for a debugger.
_DEBUGGED = 86400.0


class _Profiles(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's profiles after their host halves have run. user: the first one that a profile names."""

    active: list[ActiveProfile]
    disks: list[Disk]
    network: GuestNetwork | None
    debugger: GuestDebugger | None
    user: str | None


async def specification(
    job: CellJob, accelerator: Accelerator, *, folder: Path, disks: Sequence[Disk] = ()
) -> CellSpec:
    """The specification of one attempt at a job, here. This runs the host halves of the cell's profiles.

    folder: the cell's folder, which exists. disks: those that cells hand on.
    Raises UnpreparedError if an artifact is not in the cache, or a profile cannot be set up.
    """
    for name in job.artifacts:
        if not store.path_of(name).exists():
            raise UnpreparedError(
                f"the cache has no {name}",
                cause=f"{job.labels.cell} is run from it",
                next_step=f"Fetch or make it: quizmatrix prepare --only {job.labels.cell}",
            )
    profiles = await _set_up(job, folder)
    machine = _machine(job, accelerator, profiles)
    return CellSpec(
        labels=job.labels,
        machine=machine,
        files=_files(job.files, folder, [*disks, *profiles.disks]),
        command=_command(job.command, profiles),
        limits=_limits(job.limits, machine),
        keeps=job.keeps,
    )


def at_home(spec: CellSpec, job: CellJob, *, folder: Path, disks: Sequence[Disk] = ()) -> CellSpec:
    """What another host ran a job from, with this host's paths. Arguments: those of `specification`.

    Disks that profiles made there are named as if they were in `folder`.
    """
    replace = msgspec.structs.replace
    there, ours = spec.files, _files(job.files, folder, disks)
    named = {disk.serial for disk in ours.disks}
    made = [disk for disk in there.disks if disk.serial not in named]
    moved = [replace(disk, path=disk.path.replace(there.folder, str(folder), 1)) for disk in made]
    uses = {use.name: use for use in job.profiles}
    active = [
        replace(one, files=_files_of(_profile_folder(job, uses[one.name])))
        for one in spec.command.profiles
        if one.name in uses
    ]
    return replace(
        spec,
        labels=job.labels,
        machine=replace(spec.machine, kernel=_kernel(job.kernel)),
        files=replace(ours, disks=[*ours.disks, *moved]),
        command=replace(spec.command, profiles=active, stdin=_stdin(job.command)),
    )


def _here(name: str) -> str:
    """The path of what a job names: on this host, or in its cache."""
    return str(store.path_of(name))


def _machine(job: CellJob, accelerator: Accelerator, profiles: _Profiles) -> GuestMachine:
    asked = job.machine
    arch = load_arch(asked.arch)
    return GuestMachine(
        arch=arch,
        accelerator=accelerator,
        kernel=_kernel(job.kernel),
        memory=asked.memory,
        cpus=asked.cpus,
        numa=asked.numa,
        network=profiles.network,
        debugger=profiles.debugger,
        type=asked.type,
        qemu_words=asked.qemu_words,
        start=asked.start,
        one_thread=is_one_thread(arch, accelerator, asked.cpus),
    )


def _kernel(kernel: GuestKernel) -> GuestKernel:
    symbols = _here(kernel.symbols) if kernel.symbols is not None else None
    return msgspec.structs.replace(
        kernel, image=_here(kernel.image), initramfs=_here(kernel.initramfs), symbols=symbols
    )


def _files(files: GuestFiles, folder: Path, disks: Sequence[Disk]) -> GuestFiles:
    replace = msgspec.structs.replace
    tree = files.work_tree
    if tree is not None and tree.place:
        tree = replace(tree, place=_here(tree.place))
    return replace(
        files,
        folder=str(folder),
        work_tree=tree,
        layers=[replace(layer, path=_here(layer.path)) for layer in files.layers],
        binds=[replace(bind, path=_here(bind.path)) for bind in files.binds],
        disks=[*(replace(disk, path=_here(disk.path)) for disk in files.disks), *disks],
    )


def _command(command: GuestCommand, profiles: _Profiles) -> GuestCommand:
    user = command.user or profiles.user
    return msgspec.structs.replace(command, profiles=profiles.active, user=user, stdin=_stdin(command))


def _stdin(command: GuestCommand) -> str | None:
    return command.stdin if command.stdin in (None, OWN_STDIN) else _here(command.stdin)


def _limits(limits: GuestLimits, machine: GuestMachine) -> GuestLimits:
    factor = machine.timeout_factor
    is_waiting = machine.debugger is not None and machine.debugger.waits
    return msgspec.structs.replace(
        limits,
        timeout=factor * (_DEBUGGED if is_waiting else limits.timeout),
        boot_timeout=factor * (_DEBUGGED if is_waiting else limits.boot_timeout),
    )


async def _set_up(job: CellJob, folder: Path) -> _Profiles:
    """Run the host halves of the cell's profiles. Raises UnpreparedError if one fails."""
    uses, cell, arch = job.profiles, job.labels.cell, job.machine.arch
    folders = [_profile_folder(job, use) for use in uses]
    facts = [profile.facts_in(place) for place in folders]
    halves: list[HostHalf] = []
    if uses:
        from quizmatrix.run import hosthalf

        own = host_folder_of(folder)
        halves = [
            # Of what has travelled, nothing runs outside of the guest.
            hosthalf.HostHalf()
            if use.name in job.own_profiles
            else await hosthalf.set_up(use, place, cell=cell, arch=arch, folder=own / use.name)
            for use, place in zip(uses, folders, strict=True)
        ]
    forwards = [
        with_free_port(forward)
        for use, its in zip(uses, facts, strict=True)
        for forward in profile.forwards_of(use, its)
    ]
    waits = any(half.stopped for half in halves)
    return _Profiles(
        active=[_active(*one) for one in zip(uses, folders, halves, strict=True)],
        disks=[Disk(**msgspec.structs.asdict(disk)) for half in halves for disk in half.disks],
        network=GuestNetwork(forwards=forwards) if any(one.network for one in facts) else None,
        debugger=GuestDebugger(waits=waits) if any(one.debugger for one in facts) else None,
        user=next((half.user for half in halves if half.user), None),
    )


def _profile_folder(job: CellJob, use: Use) -> Path:
    own = job.own_profiles.get(use.name)
    return profile.folder_of(use.name, job.labels.cell) if own is None else store.path_of(own)


def _active(use: Use, folder: Path, half: HostHalf) -> ActiveProfile:
    """The guest half of a profile, with what its host half added."""
    init = folder / "init"
    return ActiveProfile(
        name=use.name,
        asked=use.asked,
        environment=use.environment | half.environment,
        init=init.read_text(encoding="utf-8") if init.is_file() else "",
        files=_files_of(folder),
        texts=half.files,
    )


def _files_of(profile_folder: Path) -> str | None:
    files = profile_folder / "files"
    return str(files) if files.is_dir() else None
