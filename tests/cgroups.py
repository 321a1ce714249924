"""Makes real cgroups on this host, for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def of_version_1(*, memory: int) -> Iterator[list[Path]]:
    """The folders of a new cgroup with one CPU and `memory` bytes; skips where none can be made."""
    folders: list[Path] = []
    limits = (("cpu", "cpu.cfs_quota_us", 100000), ("memory", "memory.limit_in_bytes", memory))
    try:
        for controller, name, limit in limits:
            # In the root cgroup, since the cgroup of this process is managed by another program.
            folder = Path("/sys/fs/cgroup", controller, f"quizmatrix-test-{os.getpid()}")
            try:
                folder.mkdir()
                folders.append(folder)
                (folder / name).write_text(str(limit))
            except OSError as error:
                pytest.skip(f"no cgroup of version 1 can be made here: {error}")
        yield folders
    finally:
        for folder in folders:
            folder.rmdir()


def entered(folders: list[Path], argv: list[str]) -> list[str]:
    """A command line that enters the cgroups and then becomes `argv`."""
    enter = "".join(f"echo $$ >{folder}/cgroup.procs; " for folder in folders)
    return ["sh", "-c", f'{enter}exec "$@"', "sh", *argv]
