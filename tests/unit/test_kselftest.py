"""The kernel's selftests: what a command's words ask for, and what the guest's program makes of its lists."""

import os
import subprocess
from pathlib import Path

import pytest

from quizmatrix.build import kselftest
from quizmatrix.core.errors import UsageError
from quizmatrix.subtests import reading

PROFILES = Path(__file__).parents[2] / "guest/profiles"

# Like the kernel's own: prints a stream for each test that it is asked for.
RUNNER = """#!/bin/sh
cd "$(dirname "$0")"
target=${2%%:*}; program=${2#*:}
printf 'TAP version 13\\n1..1\\n# selftests: %s: %s\\n' "$target" "${program##*/}"
"./$target/$program" | sed 's/^/# /'
limit=$(sed -n 's/^timeout=//p' "$target/settings" 2>/dev/null)
echo "# limit ${limit:-45}"
case $program in bad*) echo "not ok 1 selftests: $target: $program # exit=1" ;;
*) echo "ok 1 selftests: $target: ${program##*/}" ;; esac
"""
NESTED = "#!/bin/sh\nprintf 'TAP version 13\\n1..2\\nok 1 one\\nok 2 a/b\\n'\n"
TESTS = {"timers": ["nested", "plain"], "net/mptcp": ["sub/deep"], "size": ["bad"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Installed selftests."""
    folder = tmp_path / "kselftest"
    listed = []
    for target, names in TESTS.items():
        for name in names:
            program = folder / target / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(NESTED if name == "nested" else "#!/bin/sh\necho said\n")
            program.chmod(0o755)
            listed.append(f"{target}:{name}")
    (folder / "timers/settings").write_text("timeout=100\n")
    (folder / "kselftest-list.txt").write_text("".join(f"{name}\n" for name in listed))
    (folder / "run_kselftest.sh").write_text(RUNNER)
    (folder / "run_kselftest.sh").chmod(0o755)
    return folder


def run(root: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{PROFILES / 'selection/files/usr/local/bin'}:{os.environ['PATH']}"
    program = PROFILES / "kselftest/files/usr/local/bin/kselftest"
    return subprocess.run(
        [program, *words],
        env={"PATH": path, "KSELFTEST_ROOT": str(root), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def names_in(output: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "stdout").write_text(output)
    return {test.name: str(test.outcome) for test in reading.read(tmp_path / "stdout").tests}


def test_the_results_have_the_tests_inside_of_tests(root: Path, tmp_path: Path) -> None:
    done = run(root, "timers", "size", "net/mptcp:sub/deep")
    assert done.returncode == 1, done.stderr
    assert names_in(done.stdout, tmp_path) == {
        "selftests: timers: nested/one": "passed",
        "selftests: timers: nested/a/b": "passed",
        "selftests: timers: plain": "passed",
        "selftests: size: bad": "failed",
        "selftests: net/mptcp: deep": "passed",
    }
    assert run(root, "timers").returncode == 0


@pytest.mark.parametrize(
    ("variable", "lines", "left"),
    [
        ("TESTS", ["selftests: timers: nested/a/b", "selftests: net/mptcp: deep"], ["nested", "deep"]),
        ("SKIP", ["selftests: timers: nested/one", "selftests: timers: nested/a/b"], ["plain", "deep"]),
        ("LOST", ["selftests: timers: plain"], ["nested", "deep"]),
    ],
)
def test_a_list_of_results_chooses_the_programs(
    variable: str, lines: list[str], left: list[str], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("".join(f"{line}\n" for line in lines))
    name = f"QUIZMATRIX_{variable}_FILE"
    done = run(root, "timers", "net/mptcp", **{name: str(tmp_path / "list")})
    assert done.stdout.startswith("# quizmatrix: selects tests\n")
    found = {one.split(": ")[2].split("/")[0] for one in names_in(done.stdout, tmp_path)}
    assert found == set(left)


def test_slices_take_equally_long(root: Path, tmp_path: Path) -> None:
    (tmp_path / "seconds").write_text(
        "5 selftests: timers: nested/one\n5 selftests: timers: nested/a/b\n"
        "8 selftests: timers: plain\n1 selftests: net/mptcp: deep\n"
    )
    env = {"QUIZMATRIX_SECONDS_FILE": str(tmp_path / "seconds"), "QUIZMATRIX_SHARDS": "2"}
    slices = [
        run(root, "timers", "net/mptcp", **env, QUIZMATRIX_SHARD=number).stdout for number in ("1", "2")
    ]
    assert ["timers: nested" in one for one in slices] == [True, False]
    assert ["net/mptcp: deep" in one for one in slices] == [False, True]


@pytest.mark.parametrize(("factor", "limits"), [("1", {"100", "45"}), ("2.5", {"250", "112"})])
def test_time_limits_grow_with_emulation(factor: str, limits: set[str], root: Path) -> None:
    done = run(root, "timers", "size", QUIZMATRIX_TIMEOUT_FACTOR=factor)
    assert {line.split()[2] for line in done.stdout.splitlines() if line.startswith("# limit")} == limits


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "usage: kselftest"),
        (("nothing",), 2, "there is no nothing"),
        (("timers:nothing",), 2, "there is no timers:nothing"),
        (("time.*",), 2, "there is no time.*"),
    ],
)
def test_what_is_not_there_is_told_of(words: tuple[str, ...], status: int, said: str, root: Path) -> None:
    done = run(root, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


def test_time_limits_do_not_grow_twice(root: Path) -> None:
    for _ in range(2):
        done = run(root, "timers", "timers:plain", QUIZMATRIX_TIMEOUT_FACTOR="3")
        limits = [line for line in done.stdout.splitlines() if line.startswith("# limit")]
        assert limits == ["# limit 300"] * 2


def test_a_runner_that_says_nothing_is_no_pass(root: Path) -> None:
    (root / "run_kselftest.sh").write_text("#!/bin/sh\nexit 1\n")
    done = run(root, "timers:plain")
    assert (done.returncode, done.stderr) == (1, "kselftest: selftests: timers: plain has no result\n")


@pytest.mark.parametrize(
    ("command", "targets"),
    [
        (["kselftest", "timers:posix_timers", "timers", "net/mptcp"], ["net/mptcp", "timers"]),
        (["kselftest", "timers", "&&", "dmesg", "../x"], ["timers"]),
        (["kselftest timers size; dmesg"], ["size", "timers"]),
        (["kselftest timers 2>&1 | tee /shared/log"], ["timers"]),
        (["kselftest timers >/dev/null size"], ["size", "timers"]),
        (["cd /tmp\nkselftest timers\nkselftest size"], ["size", "timers"]),
        (["KSELFTEST_RTCTEST_ARGS=/dev/rtc1 kselftest rtc"], ["rtc"]),
        (["kselftest", "timers", "||", "kselftest", "size"], ["size", "timers"]),
        (["kselftest timers &", "kselftest size"], []),
        (["kselftest 'timers"], []),
        (["kselftest", "--help"], []),
        (["kselftest"], []),
        (["cat", "/opt/kselftest/kselftest-list.txt"], []),
        (["sh", "-c", "kselftest timers"], []),
        ([], []),
    ],
)
def test_the_targets_of_a_command(command: list[str], targets: list[str]) -> None:
    assert kselftest.targets_of(command) == targets


@pytest.mark.parametrize("word", ["../x", "/etc", "a b", "", "x/../../y", "$(id)"])
def test_a_word_that_is_no_target(word: str) -> None:
    with pytest.raises(UsageError, match="is no target"):
        kselftest.targets_of(["kselftest", word])
