"""The second run of a command line finds its guest restored already."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Quizmatrix
from tests.vm.processes import qemus_with, wait_for

CELL = "6.1-x86_64"
# The guest's clock, a number that no other guest has, and the hash of the host's file that it reads.
COMMAND = "date +%s; cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; cat file; exit 3"


class Repeated:
    """One command line, in one folder."""

    def __init__(self, quizmatrix: Quizmatrix, home: Path) -> None:
        self._quizmatrix = quizmatrix
        self.state = home / "state"
        self.here = home / "here"
        (self.here / "file").write_text("of the host\n")
        self.words = ["run", "--only", CELL, "--", COMMAND]

    def run(self) -> list[str]:
        """What the guest said, which ended as it has to."""
        done = self._quizmatrix(*self.words)
        assert done.returncode == 3, done.stderr.decode()
        said = done.stdout.decode().splitlines()
        assert said[3] == "of the host"
        assert abs(int(said[0]) - time.time()) < 60
        return said

    @property
    def start(self) -> str:
        """How the last guest started."""
        (cell,) = json.loads((self.state / "runs/latest/results.json").read_bytes())["cells"]
        return str(cell["start"])

    @property
    def guess(self) -> Path:
        """The file with what to begin with. A run that takes what was begun does not replace it."""
        (place,) = (self.state / "guesses").glob("*.json")
        return place

    def change_guess(self, **keys: Any) -> None:
        guess = json.loads(self.guess.read_bytes())
        self.guess.write_text(json.dumps(guess | keys))

    @property
    def left(self) -> list[object]:
        """What no run may leave."""
        return [*qemus_with(str(self.state)), *(self.state / "guesses").glob(".begun*")]


@pytest.fixture
def repeated(quizmatrix: Quizmatrix, tmp_path: Path) -> Repeated:
    """One whose guest was restored once, which kept a guess."""
    made = Repeated(quizmatrix, tmp_path)
    made.run()
    made.run()
    assert made.start == "warm"
    return made


def test_a_guest_that_was_begun_is_like_any_other(repeated: Repeated) -> None:
    kept = repeated.guess.stat().st_ino
    said = [repeated.run() for _ in range(3)]
    assert repeated.guess.stat().st_ino == kept
    assert repeated.start == "warm"
    for line in (1, 2):
        assert len({lines[line] for lines in said}) == 3
    # What it was begun with is the run's now.
    assert (repeated.state / f"runs/latest/{CELL}/artifacts").is_dir()
    assert not repeated.left


def test_a_wrong_guess_is_no_harm(repeated: Repeated, tmp_path: Path) -> None:
    right = json.loads(repeated.guess.read_bytes())
    argv, joined = right["argv"], right["joined"]
    empty = tmp_path / "empty"
    empty.touch()
    wrong_ones: list[dict[str, object]] = [
        {"argv": [*argv, "-name", "another"]},
        {"argv": ["/bin/false"]},
        {"cell": "6.1-s390x"},
        {"memory": str(tmp_path / "gone")},
        # QEMU ends at once.
        {"state": str(empty)},
        # Its guest joins other layers than the run has, or cannot join them at all.
        {"joined": joined | {"hostname": "another\n", "names": "/etc/hello\n/tmp"}},
        {"joined": joined | {"layers": "nothing"}},
        {"joined": {}},
    ]
    for wrong in wrong_ones:
        repeated.change_guess(**wrong)
        repeated.run()
        assert repeated.start == "warm"
        assert not repeated.left
        assert json.loads(repeated.guess.read_bytes())["argv"] == argv


def test_what_changes_in_layers_between_two_runs_is_seen(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    layer, here = tmp_path / "mine", tmp_path / "here"
    (layer / "etc").mkdir(parents=True)
    words = ["run", "--only", CELL, "--layer", str(layer), "--", "cat /etc/mine /lib/mine file; hostname"]
    for number in range(5):
        (layer / "etc/mine").write_text(f"etc {number}\n")
        (here / "file").write_text(f"file {number}\n")
        if number == 3:
            # Now it has to be joined otherwise.
            (layer / "lib").mkdir()
            (layer / "lib/mine").write_text("lib\n")
        kept = guess_in(tmp_path)
        said = quizmatrix(*words).stdout.decode().splitlines()
        # The first run may boot; from then on each takes what was begun, but where it has to join otherwise.
        assert number in (0, 1, 3) or (kept["joined"] and guess_in(tmp_path) == kept)
        assert said == [f"etc {number}", *["lib"] * (number > 2), f"file {number}", CELL.replace(".", "_")]


def guess_in(home: Path) -> dict[str, Any]:
    """The guess of the only command line that was run in this state; empty if there is none."""
    places = list((home / "state/guesses").glob("*.json"))
    return json.loads(places[0].read_bytes()) if places else {}


@pytest.mark.parametrize(
    ("options", "command", "said", "joins"),
    [
        (("--stdin", "file"), "cat; exit 3", b"of a file\n", True),
        (("--bind", "{here}:/mnt/rw"), "cat /mnt/rw/file; echo >/mnt/rw/new; exit 3", b"of a file\n", False),
        (("--bind", "{here}:/mnt/ro:ro"), "cat /mnt/ro/file; exit 3", b"of a file\n", True),
        (("-p", "memdev"), "[ -b /dev/quizm0 ] && exit 3", b"", False),
        (("--user", "nobody"), "echo x >/shared/x; mkdir /shared/d; id -un; exit 3", b"nobody\n", True),
        (("--cpus", "2"), "nproc; exit 3", b"2\n", True),
    ],
)
def test_runs_of_any_options_repeat(
    options: tuple[str, ...],
    command: str,
    said: bytes,
    joins: bool,
    quizmatrix: Quizmatrix,
    tmp_path: Path,
) -> None:
    here = tmp_path / "here"
    (here / "file").write_text("of a file\n")
    words = [option.format(here=here) for option in options]
    for _ in range(3):
        done = quizmatrix("run", "--only", CELL, *words, "--", command)
        assert (done.stdout, done.returncode) == (said, 3), done.stderr.decode()
    assert bool(guess_in(tmp_path)["joined"]) == joins


def test_ports_of_the_host_are_free_for_the_next_run(quizmatrix: Quizmatrix) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["run", "--only", CELL, "-p", f"net:forward={port}-22", "--", "true"]
    assert [quizmatrix(*words).returncode for _ in range(4)] == [0] * 4


def test_results_on_another_disk(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk")
    with tempfile.TemporaryDirectory(dir=other) as name:
        words = ["run", "--only", CELL, "--output", f"{name}/run", "--", "echo hello"]
        for _ in range(4):
            assert quizmatrix(*words).stdout == b"hello\n"
            shutil.rmtree(f"{name}/run")


def test_a_killed_run_leaves_no_guest(repeated: Repeated, environment: dict[str, str]) -> None:
    ways = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    for number in range(12):
        argv = [sys.executable, "-m", "quizmatrix", *repeated.words]
        started = subprocess.Popen(
            argv,
            cwd=repeated.here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(number / 15)
        started.send_signal(ways[number % len(ways)])
        started.wait()
        wait_for(lambda: not qemus_with(str(repeated.state)))
    repeated.run()
    assert repeated.start == "warm"
