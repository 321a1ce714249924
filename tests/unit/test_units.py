"""Durations, sizes and versions, as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core.units import format_seconds, parse_duration, parse_size
from quizmatrix.core.version import KernelVersion, leading_version


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("20m", 1200), ("1h30m", 5400), ("500ms", 0.5), ("1.5s", 1.5), ("2d", 172800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "5 parsecs", "1m x", "s", "1e3", "inf", "9999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "mib"),
    [("512M", 512), ("1G", 1024), ("1.5G", 1536), ("1GiB", 1024), ("2048K", 2), ("1t", 1 << 20)],
)
def test_sizes(text: str, mib: int) -> None:
    assert parse_size(text) == mib


@pytest.mark.parametrize("text", ["", "1", "lots", "0M", "-1G", "1.3M", "G", "1K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.floats(0, 1e7))
def test_shown_times_fit_a_square(seconds: float) -> None:
    shown = format_seconds(seconds)
    assert len(shown) <= 8
    assert shown[-1] in "sm"


def test_versions_are_ordered_as_kernels_are() -> None:
    texts = [
        "4.19.300",
        "5.10",
        "5.10.1",
        "6.1",
        "6.1.9",
        "6.1.176",
        "6.12-rc1",
        "6.12-rc2",
        "6.12",
        "6.12.1",
    ]
    versions = [KernelVersion(text) for text in texts]
    versions.reverse()
    assert [version.text for version in sorted(versions)] == texts


@given(*[st.tuples(st.integers(0, 20), st.integers(0, 30), st.integers(0, 300))] * 2)
def test_versions_compare_number_by_number(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    first, second = (KernelVersion(".".join(map(str, numbers))) for numbers in (one, other))
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)


@pytest.mark.parametrize("text", ["", "6", "six", "6.x", "6.1.", "v", "vv6.1", "6.1 -foo", "next-2026"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="version"):
        KernelVersion(text)


def test_a_release_begins_with_its_version() -> None:
    found = leading_version("6.12.117+deb13-amd64")
    assert found is not None
    assert (found.text, found.series) == ("6.12.117", "6.12")
    assert leading_version("newest") is None
