"""NUMA nodes of a guest (QEMU's option -numa)."""

from __future__ import annotations

from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model import kconfig
from quizmatrix.model.arch import Arch

# The largest number of nodes: QEMU's limit.
MAX_NODES = 128


def check_machine(cell: str, arch: Arch, nodes: int, memory: int) -> None:
    """Raises UnpreparedError if the machine cannot split `memory` (MiB) into that many nodes."""
    granule = arch.facts.qemu.numa
    if nodes == 1:
        return
    if not granule:
        raise UnpreparedError(
            f"{cell} cannot have {nodes} NUMA nodes",
            cause=f"QEMU's machine for {arch.name} has none",
            next_step="Leave the architecture out, or set `numa` for others in the matrix: [arch.NAME].",
        )
    if memory % granule or memory < nodes * granule:
        raise UnpreparedError(
            f"{cell}: {memory} MiB cannot be split into {nodes} NUMA nodes",
            cause=f"on {arch.name} the memory of a node has to be a multiple of {granule} MiB",
            next_step=f"--memory {max(nodes, -(-memory // granule)) * granule}M",
        )


def check_kernel(cell: str, kernel: str, config: str, nodes: int) -> None:
    """Raises UnpreparedError if several nodes are wanted and the kernel has no NUMA support."""
    if nodes > 1 and kconfig.read_config(config).get("NUMA") != "y":
        raise UnpreparedError(
            f"{cell} cannot have {nodes} NUMA nodes",
            cause=f"the kernel {kernel} has no CONFIG_NUMA",
            next_step='Take one of Debian\'s own, or a variant with config = ["CONFIG_NUMA=y"].',
        )


def options(nodes: int, memory: int, cpus: int, granule: int) -> list[str]:
    """QEMU's options for NUMA nodes. memory: MiB of all. granule: see arch.Qemu.numa.

    The nodes share the CPUs; a node may have none.
    """
    share = memory // nodes // granule * granule
    argv = []
    for number in range(nodes):
        size = share if number < nodes - 1 else memory - share * (nodes - 1)
        first, end = -(-number * cpus // nodes), -(-(number + 1) * cpus // nodes)
        own = f",cpus={first}-{end - 1}" if end > first else ""
        argv += ["-object", f"memory-backend-ram,id=node{number},size={size}M"]
        argv += ["-numa", f"node,nodeid={number},memdev=node{number}{own}"]
    return argv
