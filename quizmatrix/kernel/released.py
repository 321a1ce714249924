"""Lists the released kernel versions between two versions, in order of release."""

from __future__ import annotations

from quizmatrix.core.errors import UsageError
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel.debianversions import NEWEST
from quizmatrix.kernel.source import SOURCES, KernelSpec, parse_spec, source_named
from quizmatrix.model import named
from quizmatrix.model.arch import Arch


async def between(ends: tuple[str, str], arch: Arch) -> list[str]:
    """The specifications of the kernels from one of `ends` to the other, both included, the oldest first.

    Between two releases of one series these are all its releases; otherwise the newest release of each
    series, since the stable releases of two series do not follow one another. Raises UsageError where the two
    are of different sources or the source has no releases, UnpreparedError where the source does not answer.
    """
    one, other = parse_spec(ends[0]), parse_spec(ends[1])
    released = source_named(one.source).released
    if one.source != other.source or released is None:
        known = ", ".join(name for name in SOURCES if source_named(name).released is not None)
        raise UsageError(
            f"what lies between {named.shown(ends[0])} and {named.shown(ends[1])} is not known",
            cause="they are of two sources"
            if one.source != other.source
            else f"the source {one.source} has no releases",
            next_step=f"Name two kernels of one of these sources: {known}.",
        )
    there = await released(one.wanted, other.wanted, arch, lambda _text: None)
    (low, first), (high, last) = sorted(
        [(_version(one, there), one.text), (_version(other, there), other.text)]
    )
    if low == high:
        raise UsageError(f"{ends[0]} and {ends[1]} are one kernel", next_step="Name two.")
    if low.series == high.series and not (low.is_series or high.is_series):
        inner = [version for version in there if low < version < high]
    else:
        newest = {version.series: version for version in sorted(there)}
        inner = [
            version
            for series, version in newest.items()
            if KernelVersion(low.series) < KernelVersion(series) < KernelVersion(high.series)
        ]
    return [first, *(f"{one.source}:{there[version]}" for version in sorted(inner)), last]


def _version(spec: KernelSpec, there: dict[KernelVersion, str]) -> KernelVersion:
    if spec.wanted == NEWEST and there:
        return max(there)
    for version, name in there.items():
        if name == spec.wanted:
            return version
    try:
        return KernelVersion(spec.wanted.rpartition("#")[2])
    except ValueError as error:
        raise UsageError(f"{spec.text} is no release", cause=str(error)) from error
