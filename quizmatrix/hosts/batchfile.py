"""The file that says which jobs of a batch system a run wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quizmatrix.core import paths, tomlfile, units
from quizmatrix.core.errors import DataError
from quizmatrix.hosts.where import BatchSystem

# What the cluster decides by itself.
_OURS = frozenset(
    {"cores", "memory", "processes", "nanny", "protocol", "security", "worker_command", "asynchronous"}
)


class BatchFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The jobs that are submitted.

    jobs: how many. cpus, memory: of each. options: more arguments of dask-jobqueue's class.
    """

    jobs: int = 1
    cpus: int = 2
    memory: str = "4G"
    options: dict[str, Any] = {}


def read_options(system: BatchSystem, path: str) -> BatchFile:
    """The file that --on names, else SYSTEM.toml in the user's configuration, if there is one.

    Raises DataError where it is wrong or missing.
    """
    place = Path(path) if path else paths.config_dir() / f"{system}.toml"
    if not path and not place.exists():
        return BatchFile()
    read = tomlfile.load(place, BatchFile)
    if taken := _OURS.intersection(read.options):
        raise DataError(
            str(place),
            cause=f"`options.{min(taken)}` cannot be set",
            next_step="`jobs`, `cpus` and `memory` say how large they are.",
        )
    try:
        units.parse_size(read.memory)
    except ValueError as error:
        raise DataError(str(place), cause=f"`memory`: {error}") from error
    return read
