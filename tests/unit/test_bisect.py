"""Bisecting: which versions are tested, which lie between two kernels, and what is refused."""

from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.bisect.search import Side, VersionSearch
from quizmatrix.cli import run_command
from quizmatrix.core.errors import UsageError
from quizmatrix.kernel import released
from quizmatrix.model.arch import load_arch
from tests.unit.test_sources import Site, git, keys, repository, site

__all__ = ["keys", "repository", "site"]


@given(
    st.integers(2, 40).flatmap(
        lambda count: st.tuples(
            st.just(count), st.integers(1, count - 1), st.sets(st.integers(1, max(1, count - 2)))
        )
    ),
    st.integers(1, 5),
)
def test_the_change_is_found(history: tuple[int, int, set[int]], at_a_time: int) -> None:
    count, change, broken = history
    broken -= {0, count - 1}
    section = VersionSearch(count)
    tested: list[int] = []
    while wanted := section.next(at_a_time):
        assert len(wanted) <= at_a_time
        for at in wanted:
            tested.append(at)
            section.tell(at, Side.UNTESTABLE if at in broken else Side.LAST if at >= change else Side.FIRST)
    assert len(tested) == len(set(tested))
    assert not {0, count - 1} & set(tested)
    # The smallest range that can be known.
    assert section.before == max(at for at in range(change) if at not in broken)
    assert section.after == min(at for at in range(change, count) if at not in broken)
    assert set(section.untestable()) == set(range(section.before + 1, section.after))


def test_a_part_for_each_that_is_tested_at_a_time() -> None:
    rounds = 0
    section = VersionSearch(1000)
    while wanted := section.next(9):
        rounds += 1
        for at in wanted:
            section.tell(at, Side.LAST if at >= 777 else Side.FIRST)
    assert section.after == 777
    assert rounds == 3


def between(one: str, other: str) -> list[str]:
    return anyio.run(released.between, (one, other), load_arch("x86_64"))


def test_the_newest_of_each_series_or_the_releases_of_one(site: Site) -> None:
    names = ["6.1.9", "6.1.10", "6.2", "6.2.7", "6.3", "6.3.1", "6.4", "6.5-rc1"]
    site.sign({f"linux-{name}.tar.xz": b"" for name in names})
    assert between("kernel.org:6.4", "kernel.org:6.1") == [
        "kernel.org:6.1",
        "kernel.org:6.2.7",
        "kernel.org:6.3.1",
        "kernel.org:6.4",
    ]
    site.sign({f"linux-6.1.{point}.tar.xz": b"" for point in (9, 10, 11, 100)})
    assert between("kernel.org:6.1.9", "kernel.org:6.1.100") == [
        f"kernel.org:6.1.{point}" for point in (9, 10, 11, 100)
    ]
    with pytest.raises(UsageError, match="are one kernel"):
        between("kernel.org:6.1.9", "kernel.org:6.1.9")
    with pytest.raises(UsageError, match="is not known: they are of two sources"):
        between("kernel.org:6.1", "debian:6.2")


def test_tags_of_a_repository(repository: Path) -> None:
    for tag in ("v6.1", "v6.2", "v6.2-rc1", "v6.3", "v6.3.1", "other"):
        git(repository, "tag", tag)
    assert between(f"git:{repository}#v6.1", f"git:{repository}#v6.3.1") == [
        f"git:{repository}#{tag}" for tag in ("v6.1", "v6.2", "v6.3.1")
    ]
    with pytest.raises(UsageError, match="no release"):
        between(f"git:{repository}#v6.1", f"git:{repository}#main")
    with pytest.raises(UsageError, match="has no releases"):
        between(f"path:{repository}", f"path:{repository}")


def test_what_is_no_bisection(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*argv: str) -> str:
        assert run_command(["bisect", *argv]) == 125
        return capsys.readouterr().err

    assert "there is no command to bisect with" in said("6.1", "6.12")
    assert "of one architecture" in said("6.1", "6.12", "-a", "x86_64,s390x", "--", "true")
    assert "unknown kernel `six`" in said("6.1", "six", "-a", "s390x", "--", "true")
    assert "required: KERNEL" in said("6.1", "--", "true")
