"""Misbehaving guests harm neither the host nor other guests."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix, Sweep


def test_a_fork_bomb_ends(sweep: Callable[..., Sweep]) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000"
    done = sweep(bomb, options=("--memory", "256M", "--timeout", "2s"))
    for cell in done.cells.values():
        assert cell["outcome"] in ("timed-out", "failed", "panicked"), cell
    assert done.status == 1


def test_rubbish_on_the_control_port(sweep: Callable[..., Sweep]) -> None:
    """After the driver is unbound, the reporter has lost its port, and any program can open it."""
    steal = """
        driver=/sys/bus/virtio/drivers/virtio_console
        for device in $driver/virtio*; do device=${device##*/}; done
        echo $device >$driver/unbind; echo $device >$driver/bind; sleep 1
        for name in /sys/class/virtio-ports/*/name; do
            read -r is <$name; port=${name%/name}
            [ $is = quizmatrix.control ] && echo 'no { json' >/dev/${port##*/}
        done; sleep 1000"""
    done = sweep(steal, options=("--timeout", "5s"))
    for cell in done.cells.values():
        assert cell["outcome"] == "lost", cell
        assert "the guest sent an invalid message" in cell["detail"]
        assert "no { json" in cell["detail"]
    assert done.status == 125


def test_what_is_left_in_shared(sweep: Callable[..., Sweep]) -> None:
    script = """cd /shared
        ln -s /etc/passwd secret; ln -s ../../../.. up; mkdir -p a; ln -s ../ok a/inside; echo ok >ok
        mkfifo pipe; chmod 4755 ok; mknod disk b 8 0 2>/dev/null; exit 0"""
    done = sweep(script)
    for cell in done.cells.values():
        left = done.folder / cell["cell"] / "artifacts"
        names = sorted(str(path.relative_to(left)) for path in left.rglob("*"))
        assert names == ["a", "a/inside", "ok", "secret", "up"], cell
        assert (left / "secret").read_text() == "symbolic link to /etc/passwd\n"
        assert (left / "a/inside").read_text() == "ok\n"
        assert not (left / "ok").stat().st_mode & 0o6000
        assert "secret was a symbolic link to /etc/passwd" in cell["detail"]


def test_the_memory_of_a_guest_goes_where_no_link_of_its_leads(
    sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    """The host writes vmcore while the guest may still write to the same folder."""
    victims = [tmp_path / f"victim{number}" for number in range(3)]
    for victim in victims[:2]:
        victim.write_text("precious\n")
    # The first is the file that the host would write to; the last does not exist, and must not be created.
    script = f"""cd /shared
        ln -s {victims[0]} vmcore; ln -s {victims[1]} .vmcore; ln -s {victims[2]} vmcore-1; ln -s .. up
        ln -s up/../../stdout through; printf '\\033]0;title\\007' >"$(printf 'a\\033[2Jb')"
        echo c >/proc/sysrq-trigger; sleep 100"""
    done = sweep(script, options=("-p", "debug", "--memory", "256M"))
    for cell in done.cells.values():
        assert cell["outcome"] == "panicked", cell["detail"]
        left = done.folder / cell["cell"] / "artifacts"
        assert [victim.exists() for victim in victims] == [True, True, False]
        assert {victim.read_text() for victim in victims[:2]} == {"precious\n"}
        assert (left / "vmcore").read_text() == f"symbolic link to {victims[0]}\n"
        assert not any(path.is_symlink() for path in left.iterdir())
        assert "its memory is in artifacts/vmcore-2" in cell["detail"]
        core = (left / "vmcore-2").read_bytes()
        assert core.startswith((b"KDUMP   ", b"\x7fELF", b"makedumpfile"))
        assert sorted(path.name for path in left.parent.iterdir() if "core" in path.name) == []


def test_a_bind_that_holds_the_run_directory(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """The guest may put symlinks where the host writes files."""
    argv = ("run", "--only", "6.1-x86_64", "--offline", "--output", "out")
    done = quizmatrix(*argv, "--bind", f"{tmp_path}:/mnt", "--", "true")
    assert done.returncode == 125
    assert b"cannot be bound for writing" in done.stderr


def test_shared_has_a_limit(sweep: Callable[..., Sweep]) -> None:
    script = """[ $QUIZMATRIX_ARCH = x86_64 ] && {
            # A file that was removed while it is open.
            exec 9>/shared/a; rm /shared/a; dd if=/dev/zero bs=1M >&9 2>/dev/null
        }
        while dd if=/dev/zero of=/shared/a$i bs=1M count=16 2>/dev/null; do i=x$i; done; sleep 100"""
    done = sweep(script, options=("--shared-limit", "64M"))
    for cell in done.cells.values():
        assert cell["outcome"] == "failed", cell
        assert (cell["exit_code"], cell["detail"][:25]) == (None, "stopped: /shared grew to "), cell
        assert "its limit is 64 MiB" in cell["detail"]
        left = done.folder / cell["cell"] / "artifacts"
        # The guest may write much before the host checks the size again.
        kept = sum(path.stat().st_size for path in left.iterdir()) >> 20
        assert (kept >= 64) == (cell["arch"] != "x86_64")
        assert (done.folder / cell["cell"] / "reproduce.sh").read_text().count("--shared-limit 64M") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300M", "none", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_who_fills_the_disk_through_shared_ends_alone(quizmatrix: Quizmatrix, small_disk: Path) -> None:
    script = """case $QUIZMATRIX_ARCH in
        x86_64) while :; do dd if=/dev/zero of=/shared/$i bs=1M; i=x$i; done ;;
        *) i=0
            # The other guest may have filled the disk already.
            until echo kept >/shared/kept && [ -s /shared/kept ]; do usleep 300000; done
            while [ $i -lt 40 ]; do head -c 65536 /dev/zero; usleep 500000; i=$((i+1)); done ;;
        esac 2>/dev/null"""
    folder = small_disk / "run"
    argv = ["run", "-k", "6.1", "-a", "x86_64,s390x", "--offline", "-j2", "--output", str(folder)]
    done = quizmatrix(*argv, "--timeout", "60s", "--", script)
    results = json.loads((folder / "results.json").read_bytes())
    cells = {cell["arch"]: cell for cell in results["cells"]}
    assert cells["x86_64"]["outcome"] == "lost", done.stdout.decode()
    assert re.search(r"stopped: this host had \d+ MiB of disk left", cells["x86_64"]["detail"])
    assert "was removed" in cells["x86_64"]["detail"]
    assert list((folder / "6.1-x86_64/artifacts").iterdir()) == []
    assert cells["s390x"]["outcome"] == "passed", cells["s390x"]["detail"]
    assert (folder / "6.1-s390x/stdout").read_bytes() == bytes(65536 * 40)
    assert (folder / "6.1-s390x/artifacts/kept").read_text() == "kept\n"
    assert b"cannot write" not in done.stderr


def test_escape_sequences_stay_out_of_the_report(sweep: Callable[..., Sweep]) -> None:
    done = sweep(r"printf '\033[2J\033]0;title\007red \033[31malert\033[0m \r\b\n'; exit 1")
    assert "    red alert\n" in done.report
    assert "\x1b" not in done.report
    for cell in done.cells.values():
        assert b"\x1b[2J" in (done.folder / cell["cell"] / "stdout").read_bytes()


def test_no_write_gets_through(sweep: Callable[..., Sweep], quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """Not even root in the guest can change the work tree or the kernel's modules."""
    script = """echo x >file; rm -rf /lib/modules/*
        mkdir /m; for tag in work kernel run; do
            mount -t 9p -o trans=virtio,version=9p2000.L $tag /m 2>/dev/null || continue
            echo bad >/m/file 2>/dev/null; umount /m
        done; ls"""
    (tmp_path / "here/file").write_text("good\n")
    done = sweep(script)
    assert done.status == 0, done.report
    assert (tmp_path / "here/file").read_text() == "good\n"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["file"]
    assert quizmatrix("prepare", "-k", "6.1", "-a", "x86_64,s390x", "--offline").returncode == 0


def test_what_forks_without_end_ends_with_the_command(sweep: Callable[..., Sweep]) -> None:
    done = sweep("f() { echo spam; f & }; f & sleep 1; echo done")
    assert [cell["outcome"] for cell in done.cells.values()] == ["passed", "passed"], done.report


def test_a_deep_tree_in_shared_is_no_fault_of_the_command_and_can_be_removed(
    tmp_path: Path, environment: dict[str, str], quizmatrix: Quizmatrix
) -> None:
    # Deeper than Python can recurse. Nothing may be left, since pytest could not remove it either.
    script = "cd /shared; i=0; while [ $i -lt 1100 ]; do mkdir a && cd a; i=$((i+1)); done"
    done = quizmatrix("run", "-k", "6.1", "-a", "x86_64,s390x", "--offline", "--", script)
    assert done.returncode == 0, done.stdout.decode()
    # Not the user's cache, which `clean` would remove.
    elsewhere = environment | {"QUIZMATRIX_CACHE_DIR": str(tmp_path / "cache")}
    assert quizmatrix("clean", "--runs", env=elsewhere).returncode == 0
    assert not (tmp_path / "state/runs").exists()


def test_many_files_in_shared(sweep: Callable[..., Sweep]) -> None:
    """More files than can be examined in a moment."""
    script = """cd /shared; mkdir deep; seq 700 >names; ln -s /etc/passwd a
        xargs sh -c 'for name; do : >deep/$name; done' sh <names; ln -s ../../../.. deep/701; mkfifo z"""
    done = sweep(script)
    for cell in done.cells.values():
        assert cell["outcome"] == "passed", cell
        left = done.folder / cell["cell"] / "artifacts"
        assert (left / "a").read_text() == "symbolic link to /etc/passwd\n"
        assert (left / "deep/701").read_text() == "symbolic link to ../../../..\n"
        assert len(list((left / "deep").iterdir())) == 701
        assert not (left / "z").exists()
        for said in (
            "a was a symbolic link",
            "deep/701 was a symbolic link",
            "z was not a regular file; removed",
        ):
            assert said in cell["detail"]
