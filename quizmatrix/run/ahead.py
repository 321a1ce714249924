"""Makes the template of a guest before it is needed: boots the guest, saves it, and ends it."""

from __future__ import annotations

from pathlib import Path

import anyio

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import qemu, vm
from quizmatrix.run.channel import Control, InvalidMessageError
from quizmatrix.run.consolelog import ConsoleLog
from quizmatrix.run.ends import CONTROL, QMP
from quizmatrix.run.qmp import QmpError
from quizmatrix.run.start import Saving, starting


async def make_template(spec: CellSpec) -> str:
    """Make the template of a guest, unless there is one that is whole: it is read.

    Returns why it has none; empty if it has one.

    Raises UnpreparedError if the guest does not boot, HostError if this host cannot do its part.
    """
    # What is in the slots is not part of a template.
    shares = [Share(tag="", path=spec.files.folder)]
    async with starting(spec, shares, thoroughly=True) as start:
        if start.saving is None:
            return start.note
        await _save(spec, shares, start.saving)
        return start.saving.error


async def _save(spec: CellSpec, shares: list[Share], saving: Saving) -> None:
    folder = Path(spec.files.folder)
    memory = qemu.Memory()
    with vm.host_ends(spec, shares, memory) as ends:
        console = ConsoleLog(ends.console, folder / "console.log", lambda _line: None)
        async with task_group() as group:
            async with vm.running(spec, shares, ends, memory) as machine:
                group.start_soon(console.pump)
                group.start_soon(ends.log.pump)
                with anyio.move_on_after(spec.limits.boot_timeout):
                    try:
                        message = await Control(ends.ports[CONTROL]).receive()
                        if message is not None and message.event == "booted":
                            await saving.save(ends.ports[QMP], machine, console.printed)
                    except (QmpError, OSError, InvalidMessageError) as error:
                        saving.error = str(error)
            if machine.outlived_kill:
                # QEMU still has its ends of the ports open, so the readers would wait for ever.
                group.cancel_scope.cancel()
        if not saving.is_saved and not saving.error:
            raise UnpreparedError(
                f"{spec.labels.cell} did not boot", cause=console.watch.last_line or ends.log.last_words
            )
    await saving.publish(folder / "console.log")
