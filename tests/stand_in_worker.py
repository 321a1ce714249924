"""A worker whose guests are stand-ins: `python tests/stand_in_worker.py worker ADDRESS ...`.

All but the guest is real: what a job is run from travels, the job is specified on the worker, its folder goes
home.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# Started as a file by a process in another folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quizmatrix.cli import main
from quizmatrix.hosts import cellprocess, lenthost
from quizmatrix.hosts.forker import Forker
from quizmatrix.hosts.hostfacts import facts_for
from quizmatrix.hosts.messages import Answered, CellOrder, Told, decoded
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.stage import Stage
from quizmatrix.run.place import specification
from tests.ready import ended


async def stand_in(processes: Forker, folder: Path, tell: Callable[[Told], None]) -> Answered:
    """The answer to an order, in place of a process with a guest."""
    order = decoded((folder / cellprocess.ORDER).read_bytes(), CellOrder)
    cell = folder / cellprocess.CELL
    cell.mkdir()
    spec = await specification(order.job, Accelerator.TCG, folder=cell)
    tell(Told(specified=spec, why="a stand-in"))
    for stage in (Stage.BOOTING, Stage.RUNNING):
        tell(Told(stage=stage))
    for name in ("stdout", "stderr", "console.log"):
        (cell / name).write_text("something\n")
    return Answered(host=facts_for(order.job.machine.arch), spec=spec, result=ended(spec, Outcome.PASSED))


if __name__ == "__main__":
    lenthost._listen = stand_in
    main()
