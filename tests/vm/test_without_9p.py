"""Debian's cloud kernel has no 9p; its guests behave like any others."""

import tarfile
from pathlib import Path

from tests.vm.conftest import Quizmatrix

CELL = "6.1-x86_64+cloud"


def test_layers_and_what_comes_back(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "opt").mkdir(parents=True)
    (layer / "opt/greeting").write_text("from a layer")
    (layer / "lib/firmware").mkdir(parents=True)
    (layer / "lib/firmware/own").write_text("of a lib of its own")
    (tmp_path / "here/typed").write_text("beside it")
    (tmp_path / "bound").write_text("a single file")
    script = """
        cat /opt/greeting typed /etc/deep/bound
        [ "$(cat /usr/lib/firmware/own)" = "of a lib of its own" ] || exit 8
        modprobe dm_mod && grep -q ^dm_mod /proc/modules || exit 9
        mkdir /shared/kept; echo back >/shared/kept/file
        ln -s /etc/passwd /shared/leads-out; mknod /shared/null c 1 3
        echo vanishes >typed; ln -s kept /shared/stays
        exit 3
    """
    folder = tmp_path / "run"
    argv = [
        "run",
        "--only",
        CELL,
        "--layer",
        str(layer),
        "--bind",
        f"{tmp_path}/bound:/etc/deep/bound:ro",
        "--output",
        str(folder),
        "--",
        script,
    ]
    done = quizmatrix(*argv)
    assert (done.returncode, done.stdout) == (3, b"from a layerbeside ita single file")
    artifacts = folder / CELL / "artifacts"
    assert (artifacts / "kept/file").read_text() == "back\n"
    assert (artifacts / "stays").readlink() == Path("kept")
    assert not (artifacts / "null").exists()
    assert (artifacts / "leads-out").read_text() == "symbolic link to /etc/passwd\n"
    assert (tmp_path / "here/typed").read_text() == "beside it"


def test_a_folder_that_would_be_written_to(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    done = quizmatrix("run", "--only", CELL, "--bind", f"{tmp_path}:/mnt", "--", "true")
    assert done.returncode == 125
    assert b"has no 9p" in done.stderr
    assert b":ro" in done.stderr
    (tmp_path / "file").touch()
    done = quizmatrix("run", "--only", CELL, "--bind", f"{tmp_path}/file:/mnt/file", "--", "true")
    assert done.returncode == 125
    assert f"{tmp_path}/file cannot be bound for writing" in done.stderr.decode()


def test_a_user_without_rights(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    script = "echo hi >/dev/stdout; echo one >>/shared/out; echo two >>/shared/out"
    argv = ["run", "--only", CELL, "--user", "nobody", "--output", str(tmp_path / "run"), "--", script]
    done = quizmatrix(*argv)
    assert (done.returncode, done.stdout) == (0, b"hi\n"), done.stderr
    assert (tmp_path / "run" / CELL / "artifacts/out").read_text() == "one\ntwo\n"


def test_an_archive_of_a_hostile_guest(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """The guest controls the content of the disk that comes back; here it is made by hand."""
    victims = [tmp_path / name for name in ("a", "b", "c", "d")]
    for victim in victims:
        victim.write_text("precious\n")
    files = [
        *(("to", tarfile.SYMTYPE, str(tmp_path)), ("to/a", tarfile.REGTYPE, "")),
        *(("up", tarfile.SYMTYPE, "../../../.."), ("up/b", tarfile.REGTYPE, "")),
        *(("hard", tarfile.LNKTYPE, str(victims[2])), ("hard", tarfile.REGTYPE, "")),
        *(("../../../../c", tarfile.REGTYPE, ""), (str(victims[3]), tarfile.REGTYPE, "")),
        *(("pipe", tarfile.FIFOTYPE, ""), ("device", tarfile.CHRTYPE, ""), ("good", tarfile.REGTYPE, "")),
    ]
    with tarfile.open(tmp_path / "here/evil.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, target in files:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.size = kind, target, 0o4755, 0
            tar.addfile(member)
    script = """read -r disk </run/quizmatrix/shared-disk; rm /run/quizmatrix/shared-disk
        dd if=evil.tar of="$disk" bs=64k 2>/dev/null; sync"""
    folder = tmp_path / "run"
    done = quizmatrix("run", "--only", CELL, "--output", str(folder), "--", script)
    assert [victim.read_text() for victim in victims] == ["precious\n"] * 4, done.stderr
    left = folder / CELL / "artifacts"
    kept = [path for path in left.rglob("*") if not path.is_dir()]
    assert not [path for path in kept if path.is_symlink() or path.stat().st_nlink > 1]
    assert (left / "good").stat().st_mode & 0o7000 == 0
    assert not {"pipe", "device"} & {path.name for path in left.iterdir()}


def test_what_comes_back_has_a_limit(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    argv = ["run", "--only", CELL, "--shared-limit", "16M", "--output", str(folder), "--"]
    done = quizmatrix(*argv, "dd if=/dev/zero of=/shared/large bs=1M count=32")
    assert done.returncode == 1
    assert b"its limit is 16 MiB" in done.stderr
    assert list((folder / CELL / "artifacts").iterdir()) == []
