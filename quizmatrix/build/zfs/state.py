"""What the installed files of a part depend on, as hashes."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from quizmatrix.build.zfs.part import ZfsPart
from quizmatrix.build.zfs.tree import ZfsTree
from quizmatrix.core import checksum, process
from quizmatrix.core.store import key_of

# Part of every key; has to be changed when the same inputs are built differently.
_RECIPE = "2"


def arguments_of(part: ZfsPart) -> list[str]:
    """The arguments of ./configure."""
    triple = part.arch.facts.cross_prefix.removesuffix("-")
    # Always a cross build: in a native one, configure would run its test programs with this host's
    # libraries.
    host = [f"--host={triple}", f"--build={platform.machine()}-build-linux-gnu"]
    return [*host, *part.configure, *part.options.arguments]


def environment_of(part: ZfsPart) -> dict[str, str]:
    """The variables of ./configure and make."""
    symbols = " -g" if part.options.debug else ""
    own = {"CFLAGS": f"-O2{symbols}", "LDFLAGS": part.sysroot.linker}
    return own | part.sysroot.environment | part.environment


def configuration_of(part: ZfsPart) -> str:
    """A hash of all that ./configure depends on, and the same for trees that have the same of it."""
    # META has the version, which ./configure reads.
    read = [(part.tree.path / name).read_bytes() for name in ("configure", "META")]
    compiler = _identity(part.sysroot.compiler.split()[0])
    made = [_RECIPE, *(hashlib.sha256(content).hexdigest() for content in read), *arguments_of(part)]
    made += [repr(environment_of(part)), part.made_for, compiler]
    return key_of(made, 24)


def state_of(part: ZfsPart, tree: ZfsTree | None = None) -> str:
    """A hash of everything that the installed files depend on.

    tree: another tree with the same `configure`, for what it would be with that as the source.
    """
    of_tree = checksum.state_of((tree or part.tree).path, without=part.without)
    return key_of([f"{configuration_of(part)} {of_tree}", *([repr(part.making)] if part.making else [])])


def _identity(compiler: str) -> str:
    """A text that identifies the installed compiler, and changes with an upgrade."""
    path = process.find_program(compiler)
    if path is None:
        return compiler
    state = Path(path).resolve().stat()
    return f"{compiler} {state.st_size} {state.st_mtime_ns}"
