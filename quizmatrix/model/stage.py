"""The stages that a cell passes through, in order."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """The stage of a cell. joining: the guest mounts its layers and sets up its profiles."""

    PREPARING = "preparing"
    WAITING = "waiting"
    BOOTING = "booting"
    JOINING = "joining"
    RUNNING = "running"
    ENDING = "ending"
