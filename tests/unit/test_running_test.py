"""Which test was running when a guest died or was stopped, and OpenZFS's runner in a guest."""

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.core.json import encode_exactly
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.stage import Stage
from quizmatrix.report import grid
from quizmatrix.run.verdict import Evidence, Expiry, judge
from quizmatrix.subtests import reading, running
from quizmatrix.subtests.reading import CellOutput, parse
from quizmatrix.subtests.summary import SubtestSummary
from tests.unit.test_report import result

ROOT = "/usr/local/share/zfs/zfs-tests/tests/functional"
LIBRARY = Path(__file__).parents[2] / "guest/profiles/ztest/files/usr/local/lib/quizmatrix"


SELFTESTS = "TAP version 13\n1..2\n# selftests: net: a.sh\nok 1 selftests: net: a.sh\n"


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ("TAP version 13\n1..3\nok 1 a\n", "test 2 of 3"),
        ("TAP version 13\n1..2\n", "test 1 of 2"),
        ("TAP version 13\n1..2\nok 1 a\nok 2 b\n", ""),
        ("TAP version 13\n1..2\nok 1 a\nBail out!\n", ""),
        ("ok 1 a\n", ""),
        (
            "KTAP version 1\n1..2\n  KTAP version 1\n  # Subtest: ext4\n  1..3\n  ok 1 a\n",
            "ext4: test 2 of 3",
        ),
        ("KTAP version 1\n1..2\n  # Subtest: ext4\n  1..1\n  ok 1 a\nok 1 ext4\n", "test 2 of 2"),
        (SELFTESTS + "# selftests: net: b.sh\n# x\n", "selftests: net: b.sh"),
        (SELFTESTS, "test 2 of 2"),
    ],
)
def test_tap_says_which_has_begun(text: str, begun: str) -> None:
    assert parse(io.BytesIO(text.encode()), is_whole=False).running == begun


def kept(folder: Path, *, live: bytes | None = None, stdout: str = "", console: str = "") -> SubtestSummary:
    (folder / "stdout").write_text(stdout)
    (folder / "console.log").write_text(console)
    place = folder / "live"
    if live is not None:
        place.write_bytes(live)
    output = CellOutput(folder=str(folder), is_whole=False, console_is_whole=False, live=str(place))
    return reading.keep(encode_exactly(output).decode())


def test_the_file_that_the_runner_left_has_its_name_and_output(tmp_path: Path) -> None:
    found = kept(tmp_path, live=f"{ROOT}/rsend/rsend_001_pos\nSUCCESS: zfs create\nx\x1b[31m\n".encode())
    assert found.running == "functional/rsend/rsend_001_pos"
    assert (tmp_path / running.FILE).read_bytes() == b"SUCCESS: zfs create\nx\x1b[31m\n"
    one = result("6.1-s390x", "panicked", running=found.running)
    (tmp_path / "6.1-s390x").mkdir()
    (tmp_path / running.FILE).rename(tmp_path / "6.1-s390x" / grid.RUNNING)
    assert grid.running_lines(one, tmp_path) == [
        "functional/rsend/rsend_001_pos was running, and had printed:",
        "SUCCESS: zfs create",
        "x",
    ]


def test_of_a_large_file_the_end_is_kept(tmp_path: Path) -> None:
    found = kept(tmp_path, live=b"/a\n" + b"x" * (3 << 20) + b"the end\n")
    assert found.running == "/a"
    assert (tmp_path / running.FILE).stat().st_size == 64 << 10
    assert (tmp_path / running.FILE).read_bytes().endswith(b"the end\n")


@pytest.mark.parametrize("live", [None, b"", b"no line feed", b"\n", b"x" * 9000])
def test_a_file_that_says_nothing(live: bytes | None, tmp_path: Path) -> None:
    assert kept(tmp_path, live=live).running == ""
    assert not (tmp_path / running.FILE).exists()


def test_what_a_guest_puts_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("/a\nsecret\n")
    (tmp_path / "live").symlink_to("secret")
    assert kept(tmp_path).running == ""
    (tmp_path / "live").unlink()
    os.mkfifo(tmp_path / "live")
    assert kept(tmp_path).running == ""


@pytest.mark.parametrize("name", [b"/\xff\xfe", b"/a\x1b[31m\x00b", b"/" + b"\xe2\x80\xae" * 400, b" \t"])
def test_a_name_is_text_of_one_line(name: bytes, tmp_path: Path) -> None:
    found = kept(tmp_path, live=name + b"\nx\n").running
    assert len(found) < 300
    assert found.isprintable()


def test_without_the_file_the_console_says_it(tmp_path: Path) -> None:
    console = (
        f"[    1.0] ZTS run {ROOT}/rsend/setup\n[    2.0] ZTS run {ROOT}/rsend/rsend_001_pos\n[ 3.0] Oops\n"
    )
    done = f"Test: {ROOT}/rsend/setup (run as root)  [00:01] [PASS]\n"
    assert kept(tmp_path, console=console, stdout=done).running == "functional/rsend/rsend_001_pos"
    done += f"Test: {ROOT}/rsend/rsend_001_pos (run as root)  [00:01] [PASS]\n"
    assert kept(tmp_path, console=console, stdout=done).running == ""
    # A line that the crash has cut is no result.
    assert kept(tmp_path, console=console, stdout=done[:-5]).running == "functional/rsend/rsend_001_pos"
    assert kept(tmp_path, console=console, stdout=done[:-1]).counts == {"passed": 1}


def test_the_verdict_names_it() -> None:
    tests = SubtestSummary(running="functional/rsend/rsend_001_pos")
    watch = ConsoleWatch()
    watch.feed(b"[    3.1] Kernel panic - not syncing: sysrq triggered crash\n")
    watch.finish()
    outcome, detail = judge(Evidence(stage=Stage.RUNNING, tests=tests), watch)
    assert outcome is Outcome.PANICKED
    assert detail.endswith("sysrq triggered crash, while functional/rsend/rsend_001_pos ran")
    late = Evidence(stage=Stage.RUNNING, expired=Expiry(limit=1200), tests=tests)
    assert judge(late, ConsoleWatch()) == (
        Outcome.TIMED_OUT,
        "the command was still running after 20m00s, while functional/rsend/rsend_001_pos ran",
    )


# What zfs_test_runner.py changes in OpenZFS's runner, written as 2.4.3 has it.
RUNNER = """
import os, sys, time
from subprocess import PIPE, Popen
from threading import Timer

class Output:
    def __init__(self, stream):
        self.stream, self._buf, self.lines = stream, b"", []

    def _read(self):
        buf = os.read(self.stream.fileno(), 4096)
        if not buf:
            return None
        if b"\\n" not in buf:
            self._buf += buf
            return []
        tmp, rest = (self._buf + buf).rsplit(b"\\n", 1)
        self._buf = rest
        self.lines += [(0, row) for row in tmp.split(b"\\n")]

class Cmd:
    def __init__(self, pathname, timeout):
        self.pathname, self.timeout, self.killed = pathname, timeout, False

    def kill(self, proc):
        self.killed = True
        proc.terminate()

    def run(self, options):
        proc = Popen(["sh", "-c", self.pathname], stdout=PIPE)
        timer = Timer(int(self.timeout), self.kill, [proc])
        timer.start()
        out = Output(proc.stdout)
        while proc.poll() is None:
            out._read()
        out._read()
        timer.cancel()
        print(f"{self.pathname}: {self.timeout} {self.killed} {len(out.lines)}")

def main():
    for test in sys.argv[1:]:
        Cmd(test, "3").run(None)
"""


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zfs_test_runner", LIBRARY / "zfs_test_runner.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_runner(folder: Path, text: str, *tests: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = folder / "test-runner.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(LIBRARY / "zfs_test_runner.py"), *tests],
        env={
            "PATH": os.environ["PATH"],
            "QUIZMATRIX_TEST_RUNNER": str(folder / "test-runner.py"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_limits_are_scaled_and_the_running_test_is_seen(tmp_path: Path) -> None:
    live = tmp_path / "running.log"
    # The test itself sees what is in the file while it runs.
    test = f"echo one; sleep 0.5; cp {live} {tmp_path}/seen; echo two"
    done = run_runner(tmp_path, RUNNER, test, QUIZMATRIX_TIMEOUT_FACTOR="6", QUIZMATRIX_RUNNING=str(live))
    assert done.stdout == f"{test}: 18 False 2\n", done.stderr
    assert (tmp_path / "seen").read_text() == f"{test}\none\n"
    assert not live.exists()
    # On hardware nothing is scaled; without a place for the file the tests run all the same.
    done = run_runner(tmp_path, RUNNER, "true", QUIZMATRIX_RUNNING=str(tmp_path / "no/where"))
    assert (done.stdout, done.stderr) == ("true: 3 False 0\n", "")


def test_another_runner_runs_unchanged(tmp_path: Path) -> None:
    done = run_runner(
        tmp_path, "import sys\nif __name__ == '__main__':\n    print(sys.argv[1:])\n", "-c", "x"
    )
    assert done.stdout == "['-c', 'x']\n"
    assert "runs unchanged" in done.stderr


def test_the_file_does_not_grow_for_ever(program: Any, tmp_path: Path) -> None:
    path = tmp_path / "running.log"
    one = program.Running(str(path))
    one.begin("/a")
    for _ in range(40):
        one.add([b"x" * 99_999])
    assert path.stat().st_size < 2 << 20
    assert path.read_bytes().startswith(b"/a\n")
    one.end()
    assert not path.exists()
    assert program.scaled("0", 8) == 0
    assert program.scaled("180", 1.5) == 270
