"""Limits on what a guest may write on the host: to /shared, and through QEMU's messages."""

import contextlib
import os
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from quizmatrix.core import process
from quizmatrix.run import vm
from quizmatrix.run.cellfolder import artifacts_of
from quizmatrix.run.shared import Shared
from tests.made_spec import spec


def test_a_guest_with_too_many_files_is_to_be_ended(tmp_path: Path) -> None:
    folder = artifacts_of(tmp_path)
    folder.mkdir()
    if not os.statvfs(folder).f_files:
        pytest.skip("this file system does not count its files")
    shared = Shared(spec(tmp_path), max_files=200, trusted=50)

    async def write() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(shared.wait_for_excess)
            for number in range(300):
                (folder / str(number)).touch()
                await anyio.lowlevel.checkpoint()

    anyio.run(write)
    assert "files; its limit is 200" in shared.excess
    assert not shared.shortage


@pytest.mark.parametrize(("length", "kept"), [(12, 12), (3 << 20, 1 << 20)])
def test_the_words_of_qemu_are_cut(tmp_path: Path, length: int, kept: int) -> None:
    async def hear() -> vm.Log:
        with contextlib.closing(vm.Log(tmp_path / "qemu.log")) as log:
            script = f"yes | head -c {length - 11}; echo; printf 'last words'"
            child = await process.start(["sh", "-c", script], output=log.writer)
            log.close_writer()
            await log.pump()
            await child.wait()
            return log

    log = anyio.run(hear)
    assert (tmp_path / "qemu.log").stat().st_size == kept
    assert log.received == length
    assert log.last_words.endswith("last words")
    assert bool(log.cut) == (kept < length)
