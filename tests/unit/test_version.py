"""Kernel versions: cases that test_units.py does not have."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core.version import KernelVersion, leading_version

numbers = st.integers(0, 400)
dates = st.integers(20080101, 20991231).map("next-{}".format)
upstream = st.builds(
    lambda major, minor, patch, candidate: f"{major}.{minor}{patch}{candidate}",
    numbers,
    numbers,
    st.one_of(st.just(""), numbers.map(".{}".format)),
    st.one_of(st.just(""), st.integers(0, 9).map("-rc{}".format)),
)
texts = st.one_of(
    dates,
    st.builds(
        lambda version, date, local: version + date + local,
        upstream,
        st.one_of(st.just(""), dates.map("-{}".format)),
        st.one_of(st.just(""), st.from_regex(r"\A[-+][\w.+~-]{0,9}\Z").filter(str.isascii)),
    ),
)


@given(texts, texts)
def test_of_two_versions_one_comes_first_or_they_are_equal(one: str, other: str) -> None:
    first, second = KernelVersion(one), KernelVersion(other)
    assert [first < second, first == second, first > second].count(True) == 1
    assert first != second or hash(first) == hash(second)


@given(texts, texts, texts)
def test_the_order_has_no_cycle(one: str, two: str, three: str) -> None:
    low, middle, high = sorted(map(KernelVersion, (one, two, three)))
    assert low <= middle <= high
    assert low <= high


@given(numbers, numbers, st.integers(1, 400), st.integers(0, 99))
def test_candidates_then_the_release_then_its_patches(major: int, minor: int, patch: int, rc: int) -> None:
    series = f"{major}.{minor}"
    texts = [
        f"{series}-rc{rc}",
        f"{series}-rc{rc + 1}",
        series,
        f"{series}.{patch}",
        f"{major}.{minor + 1}-rc0",
    ]
    versions = [KernelVersion(text) for text in texts]
    assert all(earlier < later for earlier, later in pairwise(versions))


def test_a_series_is_its_first_release() -> None:
    assert KernelVersion("6.12") == KernelVersion("6.12.0")
    assert KernelVersion("6.12").is_series
    assert not KernelVersion("6.12.0").is_series
    assert not KernelVersion("6.12-rc1").is_series


@given(texts)
def test_a_version_is_written_as_it_was_read(text: str) -> None:
    version = KernelVersion(text)
    assert version.text == text
    assert KernelVersion(version.text) == version


@given(upstream, st.integers(1, 400))
def test_a_version_then_its_local_ones_then_the_next_patch(text: str, number: int) -> None:
    assert KernelVersion(text) < KernelVersion(f"{text}-mine{number}")
    assert KernelVersion(f"{text}-mine{number}") < KernelVersion(f"{text}-mine{number + 1}")
    assert KernelVersion("6.1.5-mine99") < KernelVersion("6.1.6")


@given(upstream, dates, dates)
def test_linux_next_is_newer_than_its_base(text: str, one: str, other: str) -> None:
    assert KernelVersion(text) < KernelVersion(f"{text}-{one}")
    assert (KernelVersion(one) < KernelVersion(other)) == (one < other)
    assert KernelVersion(text) < KernelVersion(one)


def test_a_tag_is_a_version() -> None:
    assert KernelVersion("v6.12") == KernelVersion("6.12")
    assert KernelVersion("v6.12").is_series
    assert KernelVersion("6.13-rc2").is_candidate
    assert not KernelVersion("6.12.1").is_candidate


@given(upstream)
def test_a_version_leads_itself_and_its_packages(text: str) -> None:
    for name in (text, f"{text}-amd64", f"{text}+deb13-amd64"):
        found = leading_version(name)
        assert found is not None
        assert found.text == text


def test_a_version_is_no_other_kind_of_thing() -> None:
    assert KernelVersion("6.1") != "6.1"
