"""Measures how long each stage of a cell takes."""

from __future__ import annotations

import time

from quizmatrix.model.result import Timings
from quizmatrix.model.stage import Stage


class Stopwatch:
    """The moments of one attempt, by the clock that no one sets."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self._reached: dict[Stage, float] = {}
        self._steps: dict[str, float] = {}

    def reach(self, stage: Stage) -> None:
        """The stage begins now."""
        self._reached[stage] = time.monotonic()

    def begin(self, step: str) -> None:
        """What the guest does on its way to the command begins now."""
        self._steps[step] = time.monotonic()

    @property
    def steps(self) -> int:
        """How many have begun."""
        return len(self._steps)

    def timings(self, total: float) -> Timings:
        """Seconds between the stages that were reached."""

        def between(first: Stage, second: Stage) -> float | None:
            if first in self._reached and second in self._reached:
                return round(self._reached[second] - self._reached[first], 3)
            return None

        starts = [self._reached.get(Stage.JOINING, 0.0), *self._steps.values()]
        ends = [*self._steps.values(), self._reached.get(Stage.RUNNING, starts[-1])]
        names = ["layers", *self._steps]
        return Timings(
            steps={
                name: round(end - start, 3)
                for name, start, end in zip(names, starts, ends, strict=True)
                if self._steps
            },
            boot=between(Stage.BOOTING, Stage.JOINING),
            profiles=between(Stage.JOINING, Stage.RUNNING),
            command=between(Stage.RUNNING, Stage.ENDING),
            total=round(total, 3),
        )
