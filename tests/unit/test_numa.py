"""NUMA nodes: how memory and CPUs are divided, and which machines have none."""

import pytest

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model import numa
from quizmatrix.model.arch import load_arch


def test_nodes_share_all_there_is() -> None:
    text = " ".join(numa.options(3, 1024, 4, 256))
    assert [word for word in text.split() if "size" in word or "nodeid" in word] == [
        "memory-backend-ram,id=node0,size=256M",
        "node,nodeid=0,memdev=node0,cpus=0-1",
        "memory-backend-ram,id=node1,size=256M",
        "node,nodeid=1,memdev=node1,cpus=2-2",
        "memory-backend-ram,id=node2,size=512M",
        "node,nodeid=2,memdev=node2,cpus=3-3",
    ]
    nodes = ["node,nodeid=0,memdev=node0,cpus=0-0", "node,nodeid=1,memdev=node1"]
    assert numa.options(2, 512, 1, 1)[3::4] == nodes


def test_what_cannot_have_them() -> None:
    for arch, memory, words in (
        ("s390x", 1024, "machine for s390x has none"),
        ("ppc64", 1000, "the memory of a node has to be a multiple of 256 MiB"),
        ("ppc64", 256, "the memory of a node has to be a multiple of 256 MiB"),
    ):
        with pytest.raises(UnpreparedError, match=words):
            numa.check_machine("cell", load_arch(arch), 2, memory)
        numa.check_machine("cell", load_arch(arch), 1, memory)
    numa.check_machine("cell", load_arch("ppc64"), 2, 1024)
    numa.check_machine("cell", load_arch("x86_64"), 2, 1001)
    with pytest.raises(UnpreparedError, match=r"the kernel 6.1.9 has no CONFIG_NUMA"):
        numa.check_kernel("cell", "6.1.9", "# CONFIG_NUMA is not set\n", 2)
    numa.check_kernel("cell", "6.1.9", "CONFIG_NUMA=y\n", 2)
