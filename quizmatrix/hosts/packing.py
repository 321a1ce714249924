"""The folder of a cell that has ended, as one file: it goes from the worker to the submitter.

A guest was hostile: what it left may be unreadable, sparse, deep or many, and lead anywhere.
"""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path

import zstandard

from quizmatrix.core import process, untrusted
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError, HostError, host_error

# The largest content that is taken, in bytes, beside what a cell's /shared may have.
BESIDE_SHARED = 4 << 30


async def pack_cell(folder: Path, target: Path, left_out: str = "") -> None:
    """Write a cell's folder to a file. GNU tar knows holes in files, and reads trees of any depth.

    left_out: the name of a folder in it that stays. Raises HostError where that fails.
    """
    # The guest may have taken its owner's right to read them.
    await process.run(["chmod", "-R", "u+rwX", "--", str(folder)], limit=None)
    await pack_folder(folder, target, left_out)


async def pack_folder(folder: Path, target: Path, left_out: str = "") -> None:
    """Like `pack_cell`, for what no guest had."""
    plain = target.with_name(f"{target.name}.tar")
    without = ["--anchored", f"--exclude=./{left_out}"] if left_out else []
    words = ["--sparse", "--format=posix", "--numeric-owner", *without, "-C", str(folder)]
    done = await process.run(["tar", *words, "-cf", str(plain), "."], limit=None)
    if done.status != 0:
        raise HostError("the results could not be packed", cause=done.last_words)
    await in_thread(partial(_compress, plain, target))
    plain.unlink()


def _compress(plain: Path, target: Path) -> None:
    with plain.open("rb") as source, target.open("wb") as into:
        zstandard.ZstdCompressor(level=1).copy_stream(source, into)


def unpack_cell(packed: Path, folder: Path, most: int) -> list[str]:
    """Put a cell's files into its folder; returns notes. Nothing is written outside of it, nor leads out.

    most: bytes that the files may have. Raises DamagedError where it cannot be read, HostError where it
    cannot be written.
    """
    left_out = _unpack(packed, folder, most)
    untrusted.make_safe(folder)
    return [f"{left_out} files in /shared lead out of it, and stayed on the other host"] if left_out else []


def unpack_folder(packed: Path, folder: Path, most: int) -> None:
    """Like `unpack_cell`, for what `pack_folder` has packed: all of it has to be there."""
    if _unpack(packed, folder, most):
        raise DamagedError("what another host has built leads out of its folder")


def _unpack(packed: Path, folder: Path, most: int) -> int:
    """Unpack; returns how many members were left out."""
    left_out = 0
    try:
        with (
            packed.open("rb") as raw,
            zstandard.ZstdDecompressor().stream_reader(raw) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                most -= _size(member)
                if most < 0:
                    raise DamagedError("what another host has sent is larger than it may be")
                try:
                    archive.extract(member, folder, filter="data")
                except (tarfile.FilterError, KeyError):
                    left_out += 1
                # It would keep all of them; a guest decides how many there are.
                archive.members.clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise DamagedError("what another host has sent cannot be read", cause=str(error)) from error
    except OSError as error:
        raise host_error(f"write to {folder}", error) from error
    return left_out


def _size(member: tarfile.TarInfo) -> int:
    """The bytes that a member takes on the disk: not its holes."""
    holes = getattr(member, "sparse", None)
    return sum(size for _, size in holes) if holes else member.size
