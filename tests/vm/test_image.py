"""Debian base images and the terminal, with real guests of both byte orders."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import ARCHES, KERNEL, Quizmatrix, Sweep
from tests.vm.test_root import ROOT, TMPFILE

# Seconds; a foreign architecture's packages are configured in an emulated guest.
LIMIT = 1800
DEBIAN = ("--image", "debian")

pytestmark = pytest.mark.timeout(LIMIT)


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """The Debian images, built where this user's cache lacks them."""
    for arch in ARCHES:
        subprocess.run(
            [sys.executable, "-m", "quizmatrix", "prepare", "--only", f"{KERNEL}-{arch}", *DEBIAN], check=True
        )


def test_a_whole_unix(sweep: Callable[..., Sweep]) -> None:
    # udev leaves the card's name alone: renamed while the profile set it up, it was gone.
    words = ["mkfs.ext4", "-q", "/dev/quizm0", "&&", "ip", "route", "get", "10.0.2.3", "oif", "eth0", "&&"]
    words += ["python3", "-c", "import sys; print(sys.byteorder)"]
    done = sweep(*words, options=(*DEBIAN, "-p", "memdev:count=6,net"))
    orders = {
        arch: (done.folder / cell["cell"] / "stdout").read_text().split()[-1]
        for arch, cell in done.cells.items()
        if cell["outcome"] == "passed"
    }
    assert orders == {"x86_64": "little", "s390x": "big"}
    assert all("udev" in cell["timings"]["steps"] for cell in done.cells.values())


def test_udev_keeps_what_happens_while_it_starts(sweep: Callable[..., Sweep]) -> None:
    """It settled the devices before the guest was saved, starts beside the command, and gets all events."""
    script = """set -e
        modprobe null_blk nr_devices=1
        udevadm settle
        [ "$(stat -c %G /dev/nullb0)" = disk ]
        [ -e /dev/disk/by-id/virtio-base ]
        ! ps ax | grep '[d]efunct'"""
    done = sweep(script, options=DEBIAN)
    assert [cell["outcome"] for cell in done.cells.values()] == ["passed", "passed"], done.report
    assert all("udev" not in cell["timings"]["steps"] for cell in done.cells.values())


@pytest.mark.parametrize("has_rules", [False, True])
def test_udev_in_a_guest_with_a_head_start(has_rules: bool, quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """It starts beside a waiting agent; where a layer has rules, it settles once the run is ready."""
    rules = tmp_path / "mine" / ("etc/udev/rules.d" if has_rules else "etc/other")
    rules.mkdir(parents=True)
    name = "by-quizmatrix" if has_rules else "by-nobody"
    (rules / "99-mine.rules").write_text(f'SUBSYSTEM=="block", KERNEL=="vd*", SYMLINK+="{name}"\n')
    script = f"udevadm settle; [ -e /dev/{name} ] && echo linked; modprobe null_blk && ls /dev/nullb0"
    words = ["run", "--only", f"{KERNEL}-x86_64", *DEBIAN, "--layer", str(tmp_path / "mine"), "--", script]
    for _ in range(3):
        said = quizmatrix(*words).stdout.decode().split()
        assert said == [*["linked"] * has_rules, "/dev/nullb0"]


def test_what_the_kernel_and_programs_ask_for_is_there(sweep: Callable[..., Sweep]) -> None:
    done = sweep(ROOT + TMPFILE, options=(*DEBIAN, "--no-work-tree"))
    assert [cell["outcome"] for cell in done.cells.values()] == ["passed", "passed"], done.report


def test_a_user_without_rights(sweep: Callable[..., Sweep]) -> None:
    script = """set -e
        echo hi >/dev/stdout; cd /shared; echo one >>out; echo two >>out
        python3 -c 'import socket
a, b = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
a.bind("socket"); a.listen(); b.connect("socket"); b.send(b"x"); assert a.accept()[0].recv(1) == b"x"'"""
    done = sweep(script, options=(*DEBIAN, "--user", "nobody"))
    for cell in done.cells.values():
        assert cell["outcome"] == "passed", cell
        folder = done.folder / cell["cell"]
        assert (folder / "stdout").read_text() == "hi\n"
        assert (folder / "artifacts/out").read_text() == "one\ntwo\n"


def test_a_device_with_errors(sweep: Callable[..., Sweep]) -> None:
    script = """set -e
        dd if=/dev/zero of=/dev/quize0 bs=1M count=16 2>/dev/null
        ! dd if=/dev/quize0 of=/dev/null bs=1M skip=16 count=1 2>/dev/null
        dd if=/dev/quize0 of=/dev/null bs=1M skip=17 2>/dev/null
        start=$(date +%s%N); dd if=/dev/quizb0 of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
        [ $((($(date +%s%N) - start) / 1000000)) -ge 300 ]"""
    options = (*DEBIAN, "-p", "memdev:count=1,size=32M,error,blockdev:count=1,latency=300ms")
    done = sweep(script, options=options)
    assert [cell["outcome"] for cell in done.cells.values()] == ["passed", "passed"], done.report


def test_a_package_that_is_missing(quizmatrix: Quizmatrix) -> None:
    done = quizmatrix("run", "--only", "6.1-x86_64", "-p", "memdev,error", "--", "true")
    assert done.returncode == 125
    assert b"the profile error needs dmsetup in the base image" in done.stderr
    assert b"--image debian" in done.stderr


class Person:
    """A person at a pseudo-terminal."""

    def __init__(self, *argv: str, environment: dict[str, str], folder: Path) -> None:
        """Starts quizmatrix there, in a window of 100 columns and 30 rows."""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            words = [sys.executable, "-m", "quizmatrix", *argv]
            os.execvpe(words[0], words, environment | {"TERM": "xterm"})  # noqa: S606 - in a child of pty.fork
        self.resize(100, 30)
        self.seen = b""

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size, as a window manager does."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def _read(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        try:
            return os.read(self._terminal, 1 << 16) if ready else b""
        except OSError:  # the other end is closed
            return b""

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until `text` appears; output before it is not searched again."""
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            assert time.monotonic() < end, self.seen.decode(errors="replace")
            self.seen += self._read(0.5)
        self.seen = self.seen.partition(text.encode())[2]

    def close_the_window(self) -> None:
        """Hang up, as when an SSH connection to this host breaks."""
        os.close(self._terminal)

    def leave(self) -> int:
        """The exit status, once quizmatrix has ended."""
        while self._read(30):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def person(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Person]]:
    """Makes people at terminals, and ends their sessions after the test."""
    people: list[Person] = []

    def sit_down(*argv: str) -> Person:
        people.append(Person(*argv, environment=environment, folder=tmp_path))
        return people[-1]

    yield sit_down
    for one in people:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_terminal(person: Callable[..., Person], tmp_path: Path) -> None:
    one = person("shell", "6.1-s390x", *DEBIAN)
    one.wait_for("# ")
    one.type("stty size; tty; pwd; echo $QUIZMATRIX_CELL\r")
    one.wait_for("30 100")
    one.wait_for("/dev/pts/")
    one.wait_for(str(tmp_path))
    one.wait_for("6.1-s390x")
    one.resize(132, 50)
    one.type("stty size\r")
    one.wait_for("50 132")
    one.type("sleep 1000\r")
    one.wait_for("sleep 1000")
    time.sleep(1)  # what is typed is shown before it is run, and nothing shows that it runs
    one.type("\x03")
    one.type("echo in''terrupted $?\r")
    one.wait_for("interrupted 130")
    one.type("vi /tmp/file\r")
    one.wait_for("~")
    one.type("ihello\x1b:wq\r")
    one.wait_for("written")
    one.type("cat /tmp/file; uname -m; exit 9\r")
    one.wait_for("hello")
    one.wait_for("s390x")
    assert one.leave() == 9


def test_a_copy_from_a_hostile_guest(
    person: Callable[..., Person], quizmatrix: Quizmatrix, tmp_path: Path
) -> None:
    (tmp_path / "evil.py").write_bytes(Path("tests/evil_sftp.py").read_bytes())
    got = tmp_path / "got"
    (got / "evil").mkdir(parents=True)
    victims = [got / "victim", tmp_path / "escaped", got / "escaped"]
    for victim in victims:
        victim.write_text("precious\n")
    # The guest's sshd changes its own configuration.
    server = f"/usr/bin/python3 {tmp_path}/evil.py"
    change = f"sed -i 's,internal-sftp,{server},' /run/quizmatrix/ssh/config"
    (tmp_path / "sshd").write_text(f'#!/bin/sh\n{change}\nexec /usr/sbin/sshd.real "$@"\n')
    (tmp_path / "sshd").chmod(0o755)
    script = "mv /usr/sbin/sshd /usr/sbin/sshd.real; cp sshd /usr/sbin"
    one = person("run", "--only", "6.1-x86_64", *DEBIAN, "-S", "--", script)
    one.wait_for("# ")
    done = quizmatrix("cp", "latest/6.1-x86_64:/evil", str(got))
    assert done.returncode == 0, done.stderr
    assert [victim.read_text() for victim in victims] == ["precious\n"] * 3
    there = {path.name: path.read_text() for path in (got / "evil").iterdir()}
    assert there.pop("out") == "symbolic link to /etc/passwd\n"
    assert there.pop("twice") in ("evil\n", "symbolic link to ../victim\n")
    assert there == {"plain": "evil\n"}
    assert (got / "evil/plain").stat().st_mode & 0o7777 == 0o755
    assert b"1 no files" in done.stderr
    assert b"3 under names that no file can have" in done.stderr
    one.type("exit\r")
    assert one.leave() == 0


def test_visitors(person: Callable[..., Person], quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    one = person("shell", "6.1-x86_64", *DEBIAN)
    one.wait_for("# ")
    one.type("mkdir /tmp/d; echo in the guest >/tmp/d/f; echo rea''dy\r")
    one.wait_for("ready")
    done = quizmatrix(
        "exec", "latest/6.1-x86_64", "--", "cat; cat /tmp/d/f; echo oh >&2; exit 5", input=b"\0\xff"
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, b"\0\xffin the guest\n", b"oh\n")
    assert quizmatrix("cp", "latest/6.1-x86_64:/tmp/d", str(tmp_path / "got")).returncode == 0
    assert (tmp_path / "got/f").read_text() == "in the guest\n"
    (tmp_path / "new").write_text("from the host\n")
    assert quizmatrix("cp", str(tmp_path / "new"), "latest/6.1-x86_64:/tmp/d/new").returncode == 0
    assert quizmatrix("exec", "latest/6.1-x86_64", "--", "cat", "/tmp/d/new").stdout == b"from the host\n"
    where = quizmatrix("exec", "latest/6.1-x86_64", "--", "pwd; echo $QUIZMATRIX_CELL; command -v blockdev")
    assert where.stdout.decode().split() == [str(tmp_path), "6.1-x86_64", "/usr/sbin/blockdev"]
    missing = quizmatrix("cp", "latest/6.1-x86_64:/nosuch", str(tmp_path))
    assert missing.returncode == 1
    assert b"nosuch" in missing.stderr
    one.type("exit\r")
    assert one.leave() == 0
    gone = quizmatrix("exec", "latest/6.1-x86_64", "--", "true")
    assert gone.returncode == 125
    assert b"no guest of 6.1-x86_64 is open" in gone.stderr


def test_a_terminal_without_an_ssh_server(person: Callable[..., Person], quizmatrix: Quizmatrix) -> None:
    one = person("shell", "6.1-x86_64")
    one.wait_for("# ")
    one.type("stty size; tty\r")
    one.wait_for("30 100")
    one.wait_for("/dev/pts/")
    one.resize(132, 50)
    one.type("stty size\r")
    one.wait_for("50 132")
    done = quizmatrix("exec", "latest/6.1-x86_64", "--", "true")
    assert done.returncode == 125
    assert b"no guest of 6.1-x86_64 is open" in done.stderr
    one.type("exit 4\r")
    assert one.leave() == 4


def test_a_terminal_after_the_command(person: Callable[..., Person]) -> None:
    one = person("run", "--only", "6.1-x86_64", *DEBIAN, "-S", "--", "echo left >/tmp/trace; exit 3")
    one.wait_for("# ")
    one.type("cat /tmp/trace; exit\r")
    one.wait_for("left")
    assert one.leave() == 3


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_window_that_is_closed(handler: signal.Handlers, person: Callable[..., Person]) -> None:
    """With SIGHUP ignored, as under nohup(1)."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        one = person("shell", "6.1-x86_64", *DEBIAN)
    finally:
        signal.signal(signal.SIGHUP, before)
    one.wait_for("# ")
    one.close_the_window()
    assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) in (129, 130)


@pytest.mark.parametrize("image", [(), DEBIAN], ids=["small", "debian"])
def test_a_command_without_a_terminal(image: tuple[str, ...], quizmatrix: Quizmatrix) -> None:
    # What it leaves running is not waited for; more is typed, and said at its end, than a pipe holds.
    script = "yes >/dev/null & cat /dev/stdin; echo said >&2; exit 6"
    typed = bytes(range(256)) * 2000
    done = quizmatrix("shell", "6.1-x86_64", *image, "--", script, input=typed)
    assert (done.returncode, done.stdout, done.stderr) == (6, typed, b"said\n")
    # Opened anew when all was typed.
    done = quizmatrix("shell", "6.1-x86_64", *image, "--", "sleep 1; cat /dev/stdin", input=b"typed")
    assert (done.returncode, done.stdout) == (0, b"typed")


def test_a_session_of_another_user(quizmatrix: Quizmatrix) -> None:
    # Whatever is hidden from others on this host.
    before = os.umask(0o077)
    try:
        words = ("--env", "TERM=vt100", "--", "id -u; echo $TERM; cd /; pwd")
        done = quizmatrix("shell", "6.1-x86_64", "--user", "1234:1234", *words)
    finally:
        os.umask(before)
    assert (done.returncode, done.stdout.decode().split()) == (0, ["1234", "vt100", "/"]), done.stderr


def test_exec_goes_on_whatever_the_session_and_its_sshd_do(
    person: Callable[..., Person], quizmatrix: Quizmatrix
) -> None:
    script = "stty raw -echo; echo ready; until [ -e /tmp/go ]; do sleep 0.2; done; exit 4"
    one = person("shell", "6.1-x86_64", *DEBIAN, "--user", "nobody", "--", script)
    one.wait_for("ready")
    # More than a terminal holds, and nobody reads it.
    for _ in range(40):
        one.type("x" * 1000)
    where = quizmatrix("exec", "latest/6.1-x86_64", "--", "id -un; stat -c %U /dev/pts/0")
    assert where.stdout.decode().split() == ["nobody", "nobody"], where.stderr
    # root's, so the session's user cannot.
    assert quizmatrix("cp", __file__, "latest/6.1-x86_64:/root/file").returncode == 0
    assert quizmatrix("exec", "latest/6.1-x86_64", "--", "touch /tmp/go").returncode == 0
    assert one.leave() == 4
    one = person("shell", "6.1-x86_64", *DEBIAN)
    one.wait_for("# ")
    assert quizmatrix("exec", "latest/6.1-x86_64", "--", "true").returncode == 0
    one.type("pkill sshd; echo kil''led\r")
    one.wait_for("killed")
    done = quizmatrix("exec", "latest/6.1-x86_64", "--", "echo again")
    assert done.stdout == b"again\n", done.stderr
    one.type("exit 3\r")
    assert one.leave() == 3


def test_an_sshd_that_is_none(person: Callable[..., Person], quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """The guest answers, but not with SSH: that is an error with a message, and no internal error."""
    program = tmp_path / "layer/usr/sbin/sshd"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf 'SSH-1.5-old\\r\\n'; sleep 1000\n")
    program.chmod(0o755)
    options = ("--layer", str(tmp_path / "layer"))
    one = person("shell", "6.1-x86_64", *DEBIAN, *options)
    one.wait_for("# ")
    # The second comes when that is known.
    for _ in range(2):
        done = quizmatrix("exec", "latest/6.1-x86_64", "--", "true")
        assert done.returncode == 255
        assert b"no connection to the guest's sshd" in done.stderr, done.stderr.decode()
        assert b"Traceback" not in done.stderr
    one.type("exit 2\r")
    assert one.leave() == 2
