"""What a head start needs to know of a guest, and whether it was the right guess."""

from __future__ import annotations

import re
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.model.spec import CellSpec, Share
from quizmatrix.run import headstart, joinfiles, qemu, template
from quizmatrix.run.ends import CONSOLE
from quizmatrix.run.headstart import FOLDER_MARK, Guess, HeadStart, mark

# The folders of a cell that exist when QEMU gets its head start.
_KNOWN_FOLDERS = re.compile(f"{FOLDER_MARK}/(?:layer|artifacts)(?:,|$)")


def take(spec: CellSpec, shares: list[Share], memory: qemu.Memory | None) -> HeadStart | None:
    """The QEMU that was started ahead, if it is one for this guest; else it is killed."""
    begun = headstart.for_cell(spec.labels.cell)
    guess = _guess(spec, shares, memory) if begun is not None else None
    if begun is None or guess is None:
        headstart.drop()
        return None
    headstart.release()
    if not begun.take(guess.argv, guess.memory, Path(spec.files.folder)):
        return None
    headstart.keep(None if guess == begun.guess else guess)
    return begun


def keep(spec: CellSpec, shares: list[Share], memory: qemu.Memory | None) -> None:
    """Keep what was started for this guest as the guess for the next run, if it may be begun ahead."""
    # The cells of a sweep keep none.
    guess = _guess(spec, shares, memory) if headstart.keeps_guesses() else None
    if guess is not None:
        headstart.keep(guess)


def _guess(spec: CellSpec, shares: list[Share], memory: qemu.Memory | None) -> Guess | None:
    """How the QEMU of this guest is started; None if it may not be begun ahead."""
    if memory is None or memory.template is None:
        return None
    # It would hold what the run itself looks at before: a port of the host, a disk.
    has_forwards = spec.machine.network is not None and spec.machine.network.forwards
    if has_forwards or any(disk.writable for disk in spec.files.disks):
        return None
    argv = _marked(spec, shares, memory)
    whole = "\n".join(argv)
    is_known = whole.count(FOLDER_MARK) == len(_KNOWN_FOLDERS.findall(whole))
    if spec.files.folder in whole or not is_known:
        # It has more in its folder than a head start makes there.
        return None
    own = Path(spec.files.folder)
    return Guess(
        cell=spec.labels.cell,
        before=process.tied_to_parent([])[:-1],
        argv=argv,
        ports=qemu.ports_of(spec, with_qmp=True),
        memory=memory.template,
        state=str(Path(memory.template).with_name(template.STATE)),
        folders=[share.path for share in shares if own not in Path(share.path).parents],
        joined=joinfiles.ahead(spec, joinfiles.files(spec, shares)),
    )


def _marked(spec: CellSpec, shares: list[Share], memory: qemu.Memory) -> list[str]:
    """QEMU's command line, with marks for its descriptors and the cell's folder."""
    chardevs = qemu.chardevs_of({name: mark(name) for name in qemu.ports_of(spec, with_qmp=True)})
    argv = qemu.command_line(spec, shares, chardevs, passed_fd=mark(CONSOLE), memory=memory)
    folder = f"path={qemu.option_value(spec.files.folder)}/"
    return [word.replace(folder, f"path={FOLDER_MARK}/") for word in argv]
