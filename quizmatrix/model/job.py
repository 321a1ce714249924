"""CellJob: what one command is run from in one cell, before a host has said what it adds to that."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quizmatrix.core import json
from quizmatrix.core.errors import DamagedError
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.profile import Use
from quizmatrix.model.spec import OWN_STDIN, GuestCommand, GuestFiles, GuestKernel, GuestLimits, Kept, Labels
from quizmatrix.model.start import StartKind


class JobMachine(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual machine that a job asks for.

    arch: the architecture's name. accelerator: what the user asked for; None: what works where it runs. The
    others are those of GuestMachine.
    """

    arch: str
    memory: int
    cpus: int
    numa: int = 1
    type: str | None = None
    qemu_words: list[str] = []
    start: StartKind | None = None
    accelerator: Accelerator | None = None


class CellJob(msgspec.Struct, frozen=True, kw_only=True):
    """One command in one cell, and the artifacts that it is run from.

    A path that is not absolute names an artifact in the store of whichever host runs the job. A place
    (run/place.py) makes a CellSpec of it: there the folder, the disks of profiles, the accelerator and the
    time limits under that are added.

    files: without a folder. command: without its profiles, which are in `profiles`, in the order in which
    they are set up. own_profiles: the folders of those that are the user's and have no host half. limits: on
    hardware.
    """

    labels: Labels
    machine: JobMachine
    kernel: GuestKernel
    files: GuestFiles
    command: GuestCommand
    profiles: tuple[Use, ...] = ()
    own_profiles: dict[str, str] = {}
    limits: GuestLimits
    keeps: Kept = Kept()

    @property
    def artifacts(self) -> list[str]:
        """The names of all artifacts that it is run from."""
        kernel, files = self.kernel, self.files
        named = [kernel.image, kernel.initramfs, *([kernel.symbols] if kernel.symbols else [])]
        named += [layer.path for layer in files.layers] + [disk.path for disk in files.disks]
        return [name for name in named if not name.startswith("/")]

    @property
    def sources(self) -> list[str]:
        """The names of its artifacts and the paths of the user's files and folders: what has to travel.

        Folders that the guest may write to, and the kernel's symbols, which are as large as all else
        together, do not.
        """
        work_tree = self.files.work_tree
        mine = [layer.path for layer in self.files.layers if layer.is_users]
        mine += [work_tree.host_path] if work_tree else []
        mine += [self.command.stdin] if self.command.stdin not in (None, OWN_STDIN) else []
        mine += [bind.path for bind in self.files.binds if not bind.writable]
        mine += self.own_profiles.values()
        artifacts = [name for name in self.artifacts if name != self.kernel.symbols]
        return list(dict.fromkeys([*artifacts, *mine]))

    def moved(self, places: Mapping[str, str]) -> CellJob:
        """The job with other names for some of its sources."""
        replace = msgspec.structs.replace
        kernel, files, command = self.kernel, self.files, self.command
        tree = files.work_tree
        return replace(
            self,
            kernel=replace(
                kernel,
                image=places.get(kernel.image, kernel.image),
                initramfs=places.get(kernel.initramfs, kernel.initramfs),
                symbols=places.get(kernel.symbols) if kernel.symbols else None,
            ),
            files=replace(
                files,
                layers=[replace(one, path=places.get(one.path, one.path)) for one in files.layers],
                disks=[replace(one, path=places.get(one.path, one.path)) for one in files.disks],
                binds=[replace(one, path=places.get(one.path, one.path)) for one in files.binds],
                work_tree=replace(tree, place=places.get(tree.host_path, tree.place)) if tree else None,
            ),
            command=replace(command, stdin=places.get(command.stdin or "", command.stdin)),
            own_profiles={name: places.get(path, path) for name, path in self.own_profiles.items()},
        )

    def encode(self) -> bytes:
        """JSON from which `decode` makes an equal job, even if words or paths are not UTF-8."""
        return json.encode_exactly(self)

    @staticmethod
    def decode(data: bytes) -> CellJob:
        """Read the output of `encode`. Raises DamagedError for anything else."""
        try:
            return json.decode_exactly(data, CellJob)
        except ValueError as error:
            raise DamagedError("a cell's job cannot be read", cause=str(error)) from error
