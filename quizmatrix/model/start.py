"""How a guest starts."""

from __future__ import annotations

from enum import StrEnum


class StartKind(StrEnum):
    """Cold: its kernel boots. Warm: it is restored from a template, a booted guest that was saved."""

    COLD = "cold"
    WARM = "warm"
