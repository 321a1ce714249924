"""Stores here what a worker has built: `run --build-on workers`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError
from quizmatrix.hosts.packing import unpack_folder
from quizmatrix.kernel import artifact
from quizmatrix.kernel.artifact import Kernel, KernelRecord
from quizmatrix.kernel.order import Order

# It begins with the kernel's version.
_KEY = re.compile(r"\d[\w.+~-]*", re.ASCII)

# Bytes that a kernel with its modules may have.
_MOST = 16 << 30


async def store(key: str, packed: Path, order: Order) -> None:
    """Store a kernel of this key, packed as a folder, unless the cache has it.

    Raises DamagedError where it is not what it says, HostError where it cannot be written.
    """
    if not _KEY.fullmatch(key):
        raise DamagedError(f"another host has built a kernel {key!r}")

    async def make(folder: Path) -> None:
        await in_thread(partial(_unpack, packed, folder, key, order.arch.name))

    waiting = partial(order.tell, "waiting for another quizmatrix that stores it")
    action = f"store the kernel {key}"
    await artifact.KERNELS.get_or_make(key, make, action=action, waiting=waiting, find=artifact.load)


def _unpack(packed: Path, folder: Path, key: str, arch: str) -> None:
    unpack_folder(packed, folder, _MOST)
    try:
        record = msgspec.json.decode((folder / artifact.RECORD).read_bytes(), type=KernelRecord)
    except (OSError, msgspec.MsgspecError) as error:
        raise DamagedError("what another host has built is no kernel", cause=str(error)) from error
    if (record.key, record.arch) != (key, arch):
        raise DamagedError(f"another host has built {record.key} for {record.arch}, not {key} for {arch}")
    Kernel(folder=folder, record=record).check(thoroughly=True)
    (folder / artifact.RECORD).unlink()
    # Where it was built there may be anything here: nothing is built against that.
    artifact.write_record(folder, msgspec.structs.replace(record, build=None, make=[]))
