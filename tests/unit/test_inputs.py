"""The word for what a cell is run from."""

from pathlib import Path

import anyio
import msgspec

from quizmatrix.model.forward import Forward
from quizmatrix.schedule.inputs import Inputs
from tests.unit.test_guest_channel import spec


def test_a_free_port_is_no_other_input(tmp_path: Path) -> None:
    async def key(port: int, memory: int = 256) -> str:
        forwards = [Forward(port=port, to=22)]
        one = msgspec.structs.replace(spec(), forwards=forwards, memory=memory, layers=[], work_tree=None)
        return await Inputs(tmp_path).key(one)

    first = anyio.run(key, 40001)
    assert first
    assert anyio.run(key, 40002) == first
    assert anyio.run(key, 40001, 512) != first
