"""The guest's side of --shard: dividing OpenZFS's tests. For real run files, set OPENZFS_SOURCE=DIR."""

import ast
import configparser
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = Path(__file__).parents[2] / "guest/profiles/ztest/files/usr/local/lib/quizmatrix/zfs_tests_shard.py"
_spec = importlib.util.spec_from_file_location("zfs_tests_shard", PROGRAM)
assert _spec is not None
assert _spec.loader is not None
shard: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = shard
_spec.loader.exec_module(shard)

COMMON = """
# A comment.
[DEFAULT]
pre = setup
user = root
timeout = 600
post = cleanup
tags = ['functional']

[tests/one]
tests = ['a', 'b',
    'c']
tags = ['functional', 'one']
timeout = 7200

[tests/large]
tests = ['t00', 't01', 't02', 't03', 't04', 't05', 't06', 't07', 't08', 't09', 't10', 't11']
pre =
tags = ['functional', 'large']

[tests/measured]
tests = ['slow']
tags = ['perf']

[/alone/test.ksh]
tags = ['functional']
"""
LINUX = """
[DEFAULT]
pre = setup
user = root
timeout = 600
post = cleanup
tags = ['functional']

[tests/one:Linux]
tests = ['d']
tags = ['functional', 'one']
"""
ALL: set[tuple[str, str | None]] = {("tests/one", name) for name in "abc"} | {
    ("tests/large", f"t{number:02}") for number in range(12)
}
ALL |= {("tests/one:Linux", "d"), ("/alone/test.ksh", None)}

T = [f"t{number:02}" for number in range(12)]

SCRIPT = """#!/bin/sh
# while getopts 'hr:t:T:u:s:' OPTION; do
printf '%s\\n' "$@"
while [ $# -gt 0 ]; do [ "$1" = -r ] && cat "$2"; shift; done
exit 3
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """An installation of OpenZFS's tests whose zfs-tests.sh prints its arguments and exits with 3."""
    (tmp_path / "runfiles").mkdir()
    (tmp_path / "runfiles/common.run").write_text(COMMON)
    (tmp_path / "runfiles/linux.run").write_text(LINUX)
    folder = tmp_path / "zfs-tests/tests/one"
    folder.mkdir(parents=True)
    for name in ("setup.ksh", "a_pos.ksh", "b_neg.ksh"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    path = tmp_path / "zfs-tests.sh"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


def names_of(config: configparser.RawConfigParser) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for section in config.sections():
        if config.has_option(section, "tests"):
            found += [(section, name) for name in ast.literal_eval(config.get(section, "tests"))]
        else:
            found.append((section, None))
    return found


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 16, 17, 40])
def test_every_test_is_in_exactly_one_shard(script: Path, shards: int) -> None:
    plans = [shard.plan(script, [], number, shards) for number in range(1, shards + 1)]
    found = [test for config, *_ in plans for test in names_of(config)]
    assert sorted(found, key=str) == sorted(ALL, key=str)
    counts = [count for _config, _kept, count, _total in plans]
    assert [len(names_of(config)) for config, *_ in plans] == counts
    assert {total for *_, total in plans} == {len(ALL)}
    assert max(counts) <= 2 * -(-len(ALL) // shards)


def test_a_slice_keeps_what_its_sections_and_the_defaults_say(script: Path) -> None:
    config, *_ = shard.plan(script, [], 1, 2)
    assert dict(config.defaults()) == {
        "pre": "setup",
        "user": "root",
        "timeout": "600",
        "post": "cleanup",
        "tags": "['functional']",
    }
    whole, *_ = shard.plan(script, [], 1, 1)
    assert whole.get("tests/one", "timeout") == "7200"
    assert whole.get("tests/large", "pre") == ""
    assert whole.get("tests/large", "post") == "cleanup"


def test_only_a_section_larger_than_a_shard_is_split(script: Path) -> None:
    holders = [list(shard.plan(script, [], number, 3)[0].sections()) for number in (1, 2, 3)]
    assert sum("tests/large" in sections for sections in holders) == 2
    assert sum("tests/one" in sections for sections in holders) == 1


def test_tags_and_run_files_of_the_arguments(script: Path) -> None:
    config, kept, _count, total = shard.plan(script, ["-T", "perf", "-r", "common", "-s", "1G"], 1, 1)
    assert names_of(config) == [("tests/measured", "slow")]
    assert (kept, total) == (["-T", "perf", "-s", "1G", "--"], 1)


def test_a_share_of_the_tags(script: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As zfs-tests.sh takes it, of all tags; also where a guest runs only some of the tests."""
    found = {share: shard.plan(script, ["-T", share], 1, 1) for share in ("1/3", "2/3", "3/3")}
    tags = [kept for _config, kept, *_ in found.values()]
    assert tags == [["-T", tag, "--"] for tag in ("perf", "large", "one")]
    (tmp_path / "only").write_text("functional/tests/large/t03\n")
    monkeypatch.setenv("QUIZMATRIX_TESTS_FILE", str(tmp_path / "only"))
    config, kept, count, _total = shard.plan(script, ["-T", "2/3"], 1, 1)
    assert kept == ["-T", "large", "--"]
    assert count == len(names_of(config))


def test_tests_by_name_and_by_path(script: Path) -> None:
    arguments = ["-u", "me", "-t", "a_pos,tests/one/b_neg"]
    found = [shard.plan(script, arguments, number, 2)[0] for number in (1, 2)]
    names = [name for config in found for _section, name in names_of(config)]
    assert names == ["a_pos.ksh", "b_neg"]
    (section,) = found[0].sections()
    assert Path(section) == script.parent / "zfs-tests/tests/one"
    assert (found[0].get(section, "pre"), found[0].get(section, "post")) == ("setup", "")
    assert found[0].get(section, "user") == "me"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [(["-r", "none"], "no run file none"), (["-t", "none"], "no test none")],
)
def test_what_is_not_there_is_named(script: Path, arguments: list[str], wrong: str) -> None:
    with pytest.raises(shard.ShardError, match=wrong):
        shard.plan(script, arguments, 1, 2)


def test_a_run_file_is_data(script: Path) -> None:
    (script.parent / "runfiles/bad.run").write_text("[x]\ntests = [open('/etc/passwd').read()]\n")
    with pytest.raises(shard.ShardError, match=r"\[x\] tests"):
        shard.plan(script, ["-r", "bad"], 1, 2)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=20), max_size=20),
    st.integers(1, 12),
    st.booleans(),
)
def test_shards_are_even(sections: list[list[int]], shards: int, is_known: bool) -> None:
    """Whether or not it is known how long each test takes, none is lost, and no shard takes much longer."""
    pieces = [
        shard.Piece(f"tests/{number}", tuple(f"t{one}" for one in range(len(seconds))))
        for number, seconds in enumerate(sections)
    ]
    took = {
        f"{number}/t{one}": float(test)
        for number, seconds in enumerate(sections)
        for one, test in enumerate(seconds)
    }
    costs = shard.Costs(took if is_known else {})
    dealt = shard.deal(pieces, shards, costs)
    loads = [sum(map(costs.of, part)) for part in dealt]
    assert sorted((p.section, t) for part in dealt for p in part for t in p.tests) == sorted(
        (p.section, t) for p in pieces for t in p.tests
    )
    longest = max(map(costs.of_test, took), default=0)
    assert max(loads) <= 2 * sum(loads) / shards + longest + 0.001


def test_shards_are_dealt_by_the_time_that_tests_took(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took = dict.fromkeys((f"large/t{number:02}" for number in range(12)), 1)
    took |= {"one/a": 40, "one/b": 20, "one/c": 20, "one/setup": 5, "one/d (Linux)": 3, "/alone/test.ksh": 5}
    seconds = script.parent / "seconds"
    seconds.write_text("".join(f"{number} {name}\n" for name, number in took.items()))
    monkeypatch.setenv("QUIZMATRIX_SECONDS_FILE", str(seconds))
    plans = [shard.plan(script, [], number, 2) for number in (1, 2)]
    first, second = (names_of(config) for config, *_ in plans)
    # The section `one` takes more than half of the time, and is split; 12 tests weigh less than its first.
    assert sorted(first + second, key=str) == sorted(ALL, key=str)
    (with_a,) = (names for names in (first, second) if ("tests/one", "a") in names)
    assert ("tests/one", "b") not in with_a
    assert ("tests/one", "c") not in with_a
    assert len({test in with_a for test in ALL if test[0] == "tests/large"}) == 1


def test_what_never_ran_takes_as_long_as_the_others() -> None:
    costs = shard.Costs({"x/a": 10.0, "x/b": 30.0, "x/c": 0.0})
    assert [costs.of_test(f"x/{name}") for name in "abcd"] == [10, 30, 0.5, pytest.approx(40 / 3)]
    piece = shard.Piece("tests/x:Linux", ("a", "d"), ("setup", "b"))
    assert costs.of(piece) == pytest.approx(10 + 40 / 3 + 30)
    assert shard.Piece("/usr/share/zfs/zfs-tests/tests/functional/x", ("a",)).names == ["functional/x/a"]


@pytest.mark.parametrize(
    ("only", "skip", "lost", "left"),
    [
        (["one/a", "one/d (Linux)", "/alone/test.ksh"], [], [], ["a", "d", ""]),
        ([], ["one/setup", "one/a", "large/t00"], [], ["b", "c", *T[1:], "", "d"]),
        ([], ["/alone/test.ksh", "one/c"], ["large/t11"], ["a", "b", *T[:-1], "d"]),
        # With a setup that failed, all of its section runs; with one that ended the guest, nothing of it.
        (["one/setup"], ["one/b"], [], ["a", "c", "d"]),
        (["one/a", "large/t07"], [], ["one/setup"], ["t07"]),
        (["one/none"], [], [], []),
    ],
)
def test_some_of_the_tests(
    script: Path,
    monkeypatch: pytest.MonkeyPatch,
    only: list[str],
    skip: list[str],
    lost: list[str],
    left: list[str],
) -> None:
    for variable, names in (("TESTS", only), ("SKIP", skip), ("LOST", lost)):
        path = script.parent / variable
        path.write_text("".join(f"{name}\n" for name in names))
        if names:
            monkeypatch.setenv(f"QUIZMATRIX_{variable}_FILE", str(path))
    config, _kept, count, total = shard.plan(script, [], 1, 1)
    assert sorted(name or "" for _section, name in names_of(config)) == sorted(left)
    assert (count, total) == (len(left), 17)
    # What is left of a shard is what is left of all, as the shards are dealt before.
    parts = [names_of(shard.plan(script, [], number, 3)[0]) for number in (1, 2, 3)]
    assert sorted((test for part in parts for test in part), key=str) == sorted(names_of(config), key=str)


def run(script: Path, number: int, shards: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = str(script.parent)
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(script), *arguments],
        env={
            **os.environ,
            "FILEDIR": folder,
            "QUIZMATRIX_SHARD": str(number),
            "QUIZMATRIX_SHARDS": str(shards),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_becomes_zfs_tests(script: Path) -> None:
    done = run(script, 2, 17, "-T", "functional", "-s", "1G")
    assert done.returncode == 3, done.stderr
    made = script.parent / "zfs-tests.shard-2-of-17.run"
    assert done.stdout.startswith(f"# shard 2 of 17: 1 of 17 tests\n-r\n{made}\n")
    assert "\n-T\nfunctional\n-s\n1G\n--\n[DEFAULT]\n" in done.stdout


def test_no_test_is_no_success(script: Path) -> None:
    done = run(script, 1, 2, "-T", "nothing")
    assert (done.returncode, done.stdout) == (1, "1..0\n")
    done = run(script, 20, 20)
    assert (done.returncode, done.stdout) == (
        0,
        "1..0 # SKIP shard 20 of 20: none of the 17 tests is left for it\n",
    )
    assert run(script, 3, 2).returncode == 1
    # Unknown options are passed on to zfs-tests.sh.
    done = run(script, 1, 2, "-Z")
    assert (done.returncode, done.stdout) == (3, "-Z\n")


@pytest.mark.skipif("OPENZFS_SOURCE" not in os.environ, reason="OPENZFS_SOURCE names no OpenZFS work tree")
@pytest.mark.parametrize("shards", [2, 7, 40])
def test_real_run_files(tmp_path: Path, shards: int) -> None:
    source = Path(os.environ["OPENZFS_SOURCE"])
    (tmp_path / "runfiles").symlink_to(source / "tests/runfiles")
    script = tmp_path / "zfs-tests.sh"
    script.symlink_to(source / "scripts/zfs-tests.sh")
    (whole,) = (shard.plan(script, [], 1, 1),)
    plans = [shard.plan(script, [], number, shards) for number in range(1, shards + 1)]
    found = [test for config, *_ in plans for test in names_of(config)]
    assert sorted(found, key=str) == sorted(names_of(whole[0]), key=str)
    assert len(found) == whole[3] > 1000
    counts = [count for _config, _kept, count, _total in plans]
    assert max(counts) - min(counts) <= 10
    for config, *_ in plans:
        for section in config.sections():
            for option, value in whole[0].items(section):
                assert option == "tests" or config.get(section, option) == value
