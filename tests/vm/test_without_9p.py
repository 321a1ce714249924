"""Debian's cloud kernel, which has no 9p: a guest of it is like any other."""

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
