"""The input key of a cell, which decides whether two runs had the same inputs."""

from pathlib import Path

import anyio

from quizmatrix.model.forward import Forward
from quizmatrix.model.spec import GuestNetwork
from quizmatrix.schedule.inputs import Inputs
from tests.made_spec import spec


def test_a_free_port_is_no_other_input(tmp_path: Path) -> None:
    async def key(port: int, memory: int = 256) -> str:
        network = GuestNetwork(forwards=[Forward(port=port, to=22)])
        one = spec(network=network, memory=memory, layers=[], work_tree=None)
        return await Inputs(tmp_path).key(one)

    first = anyio.run(key, 40001)
    assert first
    assert anyio.run(key, 40002) == first
    assert anyio.run(key, 40001, 512) != first
