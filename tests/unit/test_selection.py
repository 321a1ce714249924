"""The guest's side of --shard and --rerun-failed for suites whose tests are names: select-tests."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = Path(__file__).parents[2] / "guest/profiles/selection/files/usr/local/bin/select-tests"
NAMES = [f"generic/{number:03}" for number in range(20)]


def chosen(
    names: list[str],
    *,
    interpreter: tuple[str, ...] = ("/bin/sh",),
    path: str = "/usr/bin:/bin",
    **given: str,
) -> list[str]:
    """What the program prints. path: where it finds awk and sort. given: what QUIZMATRIX_ variables say."""
    environment = {"PATH": path, **{f"QUIZMATRIX_{name}": value for name, value in given.items()}}
    text = "".join(f"{name}\n" for name in names)
    argv = [*interpreter, str(PROGRAM)]
    done = subprocess.run(argv, input=text, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_all_without_anything_that_selects() -> None:
    assert chosen(NAMES) == NAMES
    assert chosen([]) == []
    # A test that is listed twice is one.
    assert chosen(["b", "a", "b"]) == ["b", "a"]


def test_only_what_is_listed_and_nothing_that_has_run(tmp_path: Path) -> None:
    only, skip, lost = (tmp_path / name for name in ("only", "skip", "lost"))
    only.write_text("generic/003 (quizb0)\ngeneric/001\ngeneric/007\n")
    skip.write_text("generic/001\n")
    lost.write_text("generic/019\n")
    assert chosen(NAMES, TESTS_FILE=str(only), SKIP_FILE=str(skip)) == ["generic/003", "generic/007"]
    assert chosen(NAMES, SKIP_FILE=str(skip), LOST_FILE=str(lost)) == [NAMES[0], *NAMES[2:19]]
    assert chosen(NAMES, SKIP_FILE=str(tmp_path / "none")) == NAMES
    # A device in results is a part of a test; a section is a part of its name.
    sections = ["generic/003 (a)", "generic/003 (b)", "mount (rw)"]
    skip.write_text("generic/003 (a)\n")
    assert chosen(sections) == sections
    assert chosen(sections, SKIP_FILE=str(skip)) == sections[1:]
    assert "generic/003" not in chosen(NAMES, SKIP_FILE=str(skip))
    lost.write_text("generic/003\n")
    assert chosen(sections, LOST_FILE=str(lost)) == ["mount (rw)"]
    # An empty list is a list.
    only.write_text("")
    assert chosen(NAMES, TESTS_FILE=str(only)) == []


@settings(max_examples=10, deadline=None)
@given(
    slices=st.integers(1, 5),
    seconds=st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1000).map(lambda number: round(number, 2))),
)
def test_each_test_is_in_one_slice(
    tmp_path_factory: pytest.TempPathFactory, slices: int, seconds: dict[str, float]
) -> None:
    times = tmp_path_factory.mktemp("times") / "seconds"
    times.write_text("".join(f"{took} {name}\n" for name, took in seconds.items()))
    dealt = [
        chosen(NAMES, SHARD=str(number), SHARDS=str(slices), SECONDS_FILE=str(times))
        for number in range(1, slices + 1)
    ]
    assert sorted(name for part in dealt for name in part) == NAMES
    assert all(part == sorted(part) for part in dealt)
    # None is longer than the fair share by more than its longest test.
    usual = sum(max(0.5, took) for took in seconds.values()) / len(seconds) if seconds else 1.0
    costs = {name: max(0.5, seconds[name]) if name in seconds else usual for name in NAMES}
    fair = sum(costs.values()) / slices
    assert all(sum(costs[name] for name in part) <= fair + max(costs.values()) + 0.1 for part in dealt)


def test_it_runs_with_the_small_images_programs(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("this host has no busybox")
    for name in ("awk", "sort"):
        (tmp_path / name).symlink_to(busybox)
    times = tmp_path / "seconds"
    times.write_text("30 generic/004\n10.5 generic/001 (quota)\n")
    for number in ("1", "2", "3"):
        ash = chosen(
            NAMES,
            interpreter=(busybox, "ash"),
            path=str(tmp_path),
            SECONDS_FILE=str(times),
            SHARDS="3",
            SHARD=number,
        )
        assert ash == chosen(NAMES, SECONDS_FILE=str(times), SHARDS="3", SHARD=number)
