"""Measures how long each stage of a cell takes."""

from __future__ import annotations

import time

from quizmatrix.model.result import Timings
from quizmatrix.model.stage import Stage


class Stopwatch:
    """The start times of one attempt's stages, by the monotonic clock."""

    def __init__(self) -> None:
        """No stage has begun."""
        self._reached: dict[Stage, float] = {}
        self._steps: dict[str, float] = {}

    def reach(self, stage: Stage) -> None:
        """Record that a stage begins now."""
        self._reached[stage] = time.monotonic()

    def begin(self, step: str) -> None:
        """Record that a step of the guest's setup begins now."""
        self._steps[step] = time.monotonic()

    @property
    def steps(self) -> int:
        """The number of steps that have begun."""
        return len(self._steps)

    def timings(self, total: float) -> Timings:
        """The durations of the stages that were reached. total: seconds of the whole attempt."""

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
