"""What a head start needs to know of a guest, and whether it was the right guess."""

from __future__ import annotations

import re
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import headstart, qemu, template
from quizmatrix.run.ends import CONSOLE
from quizmatrix.run.headstart import FOLDER_MARK, Guess, HeadStart, mark

# The folders of a cell that exist when QEMU gets its head start.
_KNOWN_FOLDERS = re.compile(f"{FOLDER_MARK}/(?:layer|artifacts)(?:,|$)")


def take(spec: CellSpec, shares: list[Share], memory: qemu.Memory | None) -> HeadStart | None:
    """The QEMU that was started ahead, if it is one for this guest; else it is killed."""
    begun = headstart.for_cell(spec.labels.cell)
    if begun is None:
        return None
    headstart.take()
    if memory is None or memory.template is None:
        begun.drop()
        return None
    return begun if begun.take(_marked(spec, shares, memory), memory.template) else None


def keep(spec: CellSpec, shares: list[Share], memory: qemu.Memory | None) -> None:
    """Keep what was started for this guest as the guess for the next run."""
    if memory is None or memory.template is None:
        return
    argv = _marked(spec, shares, memory)
    whole = "\n".join(argv)
    is_known = whole.count(FOLDER_MARK) == len(_KNOWN_FOLDERS.findall(whole))
    if spec.files.folder in whole or not is_known:
        # It has more in its folder than a head start makes there.
        return
    headstart.keep(
        Guess(
            cell=spec.labels.cell,
            before=process.tied_to_parent([])[:-1],
            argv=argv,
            ports=qemu.ports_of(spec, with_qmp=True),
            memory=memory.template,
            state=str(Path(memory.template).with_name(template.STATE)),
        )
    )


def _marked(spec: CellSpec, shares: list[Share], memory: qemu.Memory) -> list[str]:
    """QEMU's command line, with marks for its descriptors and the cell's folder."""
    chardevs = qemu.chardevs_of({name: mark(name) for name in qemu.ports_of(spec, with_qmp=True)})
    argv = qemu.command_line(spec, shares, chardevs, passed_fd=mark(CONSOLE), memory=memory)
    folder = f"path={qemu.option_value(spec.files.folder)}/"
    return [word.replace(folder, f"path={FOLDER_MARK}/") for word in argv]
