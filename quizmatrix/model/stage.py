"""The stages of a cell, from waiting to its end."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """How far a cell has come."""

    PREPARING = "preparing"
    WAITING = "waiting"
    BOOTING = "booting"
    JOINING = "joining"
    RUNNING = "running"
    ENDING = "ending"
