"""`quizmatrix doctor`: checks what this host has and lacks, and names the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import cgroup, packagefile, paths, process, sandbox
from quizmatrix.core.errors import HostError, QuizmatrixError
from quizmatrix.core.folders import disk_usage
from quizmatrix.core.json import to_json
from quizmatrix.core.memory import available_memory
from quizmatrix.debian import apt, host
from quizmatrix.image import debian, own, small
from quizmatrix.kernel import build
from quizmatrix.model.arch import Arch, arch_names, host_arch, load_arch
from quizmatrix.model.archive import load_archive
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits, load_matrix, shipped_matrices
from quizmatrix.model.outcome import EXIT_FAILED, EXIT_OK
from quizmatrix.model.task import trial_of
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import job_of
from quizmatrix.run import accelerator, template
from quizmatrix.run.emulator import is_one_thread, version_of

# Programs that are always needed, and their Debian packages.
TOOLS = {"depmod": "kmod", "setpriv": "util-linux"}

# The text for programs that are needed only for Debian's archive.
_FOR_DEBIAN = "needed for Debian's kernels, sources and base images alone"

_FOR_DKMS = "needed for modules with a dkms.conf alone"

_WANTED_SPACE = 4 << 30


class HostCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `doctor`. state: ok, note (works without it), or lack. mend: what to do."""

    what: str
    state: str
    says: str
    package: str = ""
    mend: str = ""


def check(*, as_json: bool = False, retry_kvm: bool = False) -> int:
    """Check the host, and print the result. Returns exit status 1 where something necessary is missing.

    retry_kvm: make a new trial boot with KVM.
    """
    if retry_kvm:
        accelerator.forget()
    findings = [*_tools(), *_machines(), _building(), _images(), *_places(), _templates(), _room()]
    if as_json:
        sys.stdout.write(to_json(findings).decode())
    else:
        _print(findings)
    return EXIT_FAILED if any(finding.state == "lack" for finding in findings) else EXIT_OK


def _print(findings: list[HostCheck]) -> None:
    marks = {"ok": "ok  ", "note": "note", "lack": "LACK"}
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{marks[finding.state]}  {finding.what:{width}}  {finding.says}")
    mends = [finding.mend for finding in findings if finding.mend]
    packages = sorted({finding.package for finding in findings if finding.package})
    if packages:
        sudo = "" if os.geteuid() == 0 else "sudo "
        mends.insert(0, f"{sudo}apt-get install {' '.join(packages)}")
        if process.find_program("apt-get") is None:
            mends[0] = "install what Debian has in the packages " + ", ".join(packages)
    if mends:
        print("\nTo mend it:")
        for mend in mends:
            print(f"  {mend}")


def _tools() -> list[HostCheck]:
    found = []
    for tool, package in (TOOLS | host.TOOLS | {sandbox.PROGRAM: sandbox.PACKAGE}).items():
        path = process.find_program(tool)
        if path is not None:
            found.append(HostCheck(what=tool, state="ok", says=path))
        elif tool in TOOLS:
            found.append(HostCheck(what=tool, state="lack", says="not installed", package=package))
        else:
            says = f"not installed: {_FOR_DKMS if tool == sandbox.PROGRAM else _FOR_DEBIAN}"
            found.append(HostCheck(what=tool, state="note", says=says, package=package))
    try:
        keyring = load_archive().keyring or ""
    except QuizmatrixError as error:
        return [*found, HostCheck(what="debian.toml", state="lack", says=str(error))]
    if Path(keyring).is_file():
        found.append(HostCheck(what="keyring", state="ok", says=keyring))
    else:
        says = f"{apt.no_keyring(keyring).fact}: {_FOR_DEBIAN}"
        found.append(HostCheck(what="keyring", state="note", says=says, package="debian-archive-keyring"))
    return [*found, _packages(), _small_image()]


def _packages() -> HostCheck:
    """Whether other distributions' packages can be read. That is optional, so a missing library is a note."""
    library, package = packagefile.LIBRARY
    try:
        packagefile.check_library()
    except HostError as error:
        says = f"{error.fact}: needed for kernels from .deb and .rpm files alone"
        return HostCheck(what=library, state="note", says=says, package=package)
    return HostCheck(what=library, state="ok", says="reads .deb and .rpm files")


def _small_image() -> HostCheck:
    """Whether the small image of this host's architecture can be made; without it no guest runs."""
    what = "small image"
    try:
        arch = host_arch()
    except QuizmatrixError as error:
        return HostCheck(what=what, state="note", says=str(error))
    if small.is_stored(arch):
        return HostCheck(what=what, state="ok", says=f"of {arch.name}: in the cache")
    if host.obstacle() is None:
        return HostCheck(what=what, state="ok", says="will be made of Debian's packages")
    if own.programs(arch) is not None:
        return HostCheck(what=what, state="ok", says="will be made of this host's own busybox")
    mend = "or a static busybox of this host's, for kernels from source alone"
    says = "cannot be made: neither Debian's packages can be fetched nor has this host a static busybox"
    return HostCheck(what=what, state="lack", says=says, mend=mend)


def _machines() -> list[HostCheck]:
    """QEMU and accelerator of each architecture. Without a QEMU only its own cells cannot run."""
    found = []
    usual = load_matrix(shipped_matrices()["default"]).arches
    for name in arch_names():
        arch = load_arch(name)
        qemu = arch.facts.qemu
        path = process.find_program(qemu.binary)
        if path is None:
            says = f"{qemu.binary} is not installed: its cells will be unprepared"
            if name in usual:
                found.append(HostCheck(what=name, state="lack", says=says, package=qemu.package))
            else:  # used only if the user asks for it
                found.append(
                    HostCheck(what=name, state="note", says=f"{says} (Debian's package: {qemu.package})")
                )
            continue
        state, how = _accelerator(arch)
        says = f"QEMU {version_of(qemu.binary) or 'of unknown version'}, {how}"
        found.append(HostCheck(what=name, state=state, says=says))
    return found


def _building() -> HostCheck:
    """The architectures whose kernels can be built. That is optional, so a missing tool is only a note."""
    packages: dict[str, None] = {}
    ready = []
    for name in arch_names():
        tools = build.tools_for(load_arch(name))
        missing = [package for tool, package in tools.items() if process.find_program(tool) is None]
        packages |= dict.fromkeys(missing)
        if not missing:
            ready.append(name)
    if process.find_program("ccache") is None:
        packages["ccache"] = None
    says = f"kernels can be built for {', '.join(ready) or 'no architecture'}"
    if not packages:
        return HostCheck(what="building", state="ok", says=says)
    return HostCheck(what="building", state="note", says=f"{says}; more with: {' '.join(packages)}")


def _images() -> HostCheck:
    """Whether Debian images can be made. That is optional, so a missing tool is only a note."""
    missing = [package for tool, package in debian.TOOLS.items() if process.find_program(tool) is None]
    says = "Debian base images can be made" + (
        f"; faster or at all with: {' '.join(missing)}" if missing else ""
    )
    return HostCheck(what="images", state="note" if missing else "ok", says=says)


def _accelerator(arch: Arch) -> tuple[str, str]:
    """The accelerator of an architecture: state and text. Makes a trial boot if a kernel is in the cache."""
    answer = accelerator.without_trial(arch)
    if answer is None:
        try:
            answer = anyio.run(_try_kvm, arch)
        except QuizmatrixError:
            return "note", "kvm or tcg: decided by a trial boot in the first run"
    state = "note" if arch.is_native and answer.accelerator == "tcg" else "ok"
    said = answer.detail.partition(": ")[2]
    text = f"{answer.accelerator}: {answer.why}" + (f": {said}" if said else "")
    if is_one_thread(arch, answer.accelerator, 2):
        text += f"; a guest's CPUs share a thread (not from QEMU {arch.facts.qemu.threads_from} on)"
    return state, text


async def _try_kvm(arch: Arch) -> accelerator.Answer:
    """Make a trial boot with a kernel of the default matrix that is in the cache."""
    kernels = load_matrix(shipped_matrices()["default"]).kernels
    preparer = Preparer(Policy(offline=True))
    failure: QuizmatrixError | None = None
    for kernel in kernels:
        (cell,) = cells_on_the_spot([f"{kernel}-{arch.name}"], Limits())
        try:
            prepared = await preparer.prepare(cell, lambda _text: None)
        except QuizmatrixError as error:
            failure = error
            continue
        return await accelerator.try_kvm(job_of(trial_of(cell), prepared))
    raise failure or QuizmatrixError("there is no kernel to try")


def _places() -> list[HostCheck]:
    found = []
    for what, path in (("cache", paths.cache_dir()), ("runs", paths.state_dir())):
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK):
            variable = "QUIZMATRIX_CACHE_DIR" if what == "cache" else "QUIZMATRIX_STATE_DIR"
            mend = f"make {there} writable, or name another folder with {variable}"
            found.append(HostCheck(what=what, state="lack", says=f"{path} is not writable", mend=mend))
            continue
        used = disk_usage(path) // 1_000_000 if path.exists() else 0
        says = f"{path}: {used} MB used, {free / (1 << 30):.1f} GiB free"
        found.append(HostCheck(what=what, state="note" if free < _WANTED_SPACE else "ok", says=says))
    return found


def _templates() -> HostCheck:
    """How many booted guests are kept, and what they may take."""
    kept = template.stored()
    try:
        budget = template.budget()
    except QuizmatrixError as error:
        return HostCheck(what="templates", state="lack", says=error.fact, mend=error.cause)
    used = sum(size for _, size, _ in kept)
    says = f"{len(kept)} booted guests are kept, {used // 1_000_000} MB of at most {budget // 1_000_000} MB"
    return HostCheck(what="templates", state="ok", says=f"{says} ({template.BUDGET_VARIABLE})")


def _room() -> HostCheck:
    cpus, memory = process.usable_cpus(), available_memory()
    found = {"CPUs": cgroup.cpus(), "memory": cgroup.memory_left()}
    limited = [what for what, limit in found.items() if limit is not None]
    limits = f" (a cgroup limits its {' and '.join(limited)})" if limited else ""
    return HostCheck(what="host", state="ok", says=f"{cpus} CPUs, {memory} MiB of memory available{limits}")
