"""A guest's root file system: modules loaded on demand, device nodes, /tmp, PID 1."""

from collections.abc import Callable

from tests.vm.conftest import Sweep

# Only btrfs is loaded by name here; it needs modules that the kernel itself requests by modprobe(8).
ROOT = """set -e
    [ "$(cat /proc/sys/kernel/modprobe)" = /sbin/modprobe ]
    ip link add d0 type dummy
    modprobe btrfs
    grep -q ^libcrc32c /proc/modules
    truncate -s 8M /tmp/disk
    /sbin/mke2fs -F /tmp/disk >/dev/null 2>&1
    mount -t ext2 -o loop /tmp/disk /mnt
    [ -c /dev/mapper/control ] && [ "$(stat -c %a:%t:%T /dev/fuse)" = 666:a:e5 ]
    cd /tmp
    mkdir lower upper work both
    mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work both both
    echo there >both/file
    [ "$(cat upper/file)" = there ]
    for program in /usr/sbin/*; do [ -e "$program" ] || { echo "$program leads nowhere"; exit 1; }; done"""
TMPFILE = """
    python3 -c 'import os; os.write(os.open("/tmp", os.O_TMPFILE | os.O_RDWR), b"x")'"""


def test_what_the_kernel_and_programs_ask_for_is_there(sweep: Callable[..., Sweep]) -> None:
    done = sweep(ROOT)
    assert [cell["outcome"] for cell in done.cells.values()] == ["passed", "passed"], done.report


def test_a_command_that_kills_everything_has_failed(sweep: Callable[..., Sweep]) -> None:
    """kill(2) with -1 spares PID 1 and its caller, here the command's shell, but kills the shell's parent."""
    # The second run: the program that passes the output on may be killed before it has passed all bytes on.
    done = sweep("echo before; echo why >&2; sleep 1; kill -9 -1; echo behind")
    for cell in done.cells.values():
        assert (cell["outcome"], cell["exit_code"], cell["signal"]) == ("failed", 137, 9), cell
        folder = done.folder / cell["cell"]
        assert (folder / "stdout").read_text().startswith("before\n")
        assert (folder / "stderr").read_text() == "why\n"
        assert "killed by SIGKILL" in cell["detail"]


def test_output_goes_on_when_its_reader_was_killed(sweep: Callable[..., Sweep]) -> None:
    done = sweep("killall cat; seq 100000 | tail -n 1; exit 5")
    for cell in done.cells.values():
        assert (cell["outcome"], cell["exit_code"], cell["signal"]) == ("failed", 5, None), cell
        assert (done.folder / cell["cell"] / "stdout").read_text() == "100000\n"


def test_a_restart_is_the_commands_own(sweep: Callable[..., Sweep]) -> None:
    done = sweep("reboot; sleep 1000", options=("--timeout", "60s"))
    for cell in done.cells.values():
        assert cell["outcome"] == "failed", cell
        assert "restarted" in cell["detail"]
