"""What kernels can be had from the sources, and what was known of that when they were asked last."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

import msgspec

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.core.version import natural_key, series_of
from quizmatrix.kernel.kernelsource import AvailableKernel
from quizmatrix.kernel.source import SOURCES, source_named
from quizmatrix.model.arch import Arch

# What each source said last, by its name.
LISTS = Store(what="list of kernels", folder="available", reference="{}.json")


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a source said. time: when, in seconds since the epoch."""

    time: float
    kernels: list[AvailableKernel]


async def ask(series: str, arches: list[Arch], tell: Tell) -> None:
    """Ask all sources at once, and keep their answers for `known`.

    series: empty for all. arches: of ready-made kernels. tell: gets a line for a source that does not answer.
    """

    async def ask_one(name: str) -> None:
        available = source_named(name).available
        if available is None:
            return
        try:
            found = await available(series, arches, tell)
        except QuizmatrixError as error:
            tell(f"{error}; going on without {name}")
            return
        kept = [one for one in _read(name).kernels if not _is_answered(one, series, arches)]
        answer = _Answer(time=time.time(), kernels=[*found, *kept])
        LISTS.write_reference(name, msgspec.json.encode(answer))

    async with task_group() as group:
        for name in SOURCES:
            group.start_soon(partial(ask_one, name))


def known(series: str = "", arches: Iterable[str] = ()) -> list[AvailableKernel]:
    """What the sources said last: of a series, and for one of the architectures, unless these are empty."""
    wanted = set(arches)
    return [
        one
        for name in SOURCES
        for one in sorted(_read(name).kernels, key=lambda one: natural_key(one.version), reverse=True)
        if series in ("", series_of(one.version))
        if not (wanted and one.arches) or wanted.intersection(one.arches)
    ]


def asked_last() -> float | None:
    """When a source was asked last, in seconds since the epoch; None if none was."""
    times = [when for name in SOURCES if (when := _read(name).time)]
    return max(times, default=None)


def _is_answered(old: AvailableKernel, series: str, arches: list[Arch]) -> bool:
    """Whether a new answer takes the place of an old one."""
    names = {arch.name for arch in arches}
    return series in ("", series_of(old.version)) and (not old.arches or not names.isdisjoint(old.arches))


def _read(source: str) -> _Answer:
    """The last answer of a source; an empty one if there is none, or an earlier version wrote it."""
    content = LISTS.read_reference(source)
    try:
        return msgspec.json.decode(content or b"", type=_Answer)
    except msgspec.MsgspecError:
        return _Answer(time=0.0, kernels=[])
