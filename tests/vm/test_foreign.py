"""A program of another architecture: status 126, the reason, and no finding about the kernel."""

from collections.abc import Callable
from pathlib import Path

from tests.tiny_elf import X86_64, with_loader
from tests.vm.conftest import Quizmatrix, Sweep
from tests.vm.test_single import only

SENTENCE = "prog is a program for x86_64"


def program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(X86_64)
    path.chmod(0o755)


def test_a_file_of_the_current_folder_boots_nothing(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    program(tmp_path / "here/prog")
    run = sweep("./prog")
    cell = run.cells["s390x"]
    assert (cell["outcome"], cell["exit_code"], cell["detail"]) == ("failed", 126, f"./{SENTENCE}")
    assert cell["foreign"] == "x86_64"
    assert cell["timings"]["boot"] is None
    assert run.cells["x86_64"]["outcome"] == "passed"
    assert f"./{SENTENCE}" in run.report
    assert "only on" not in run.report


def test_elsewhere_the_guest_looks(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    program(tmp_path / "layer/opt/bin/prog")
    options = ("--layer", str(tmp_path / "layer"), "--env", "PATH=/opt/bin:/usr/bin:/bin")
    done = quizmatrix(*only("6.1-s390x", "prog", "a b", options=options))
    assert (done.returncode, done.stdout) == (126, b"")
    assert f"6.1-s390x: failed (126): {SENTENCE}" in done.stderr.decode()
    done = quizmatrix(*only("6.1-x86_64", "prog", "a b", options=options))
    assert (done.returncode, done.stderr) == (0, b"")


def test_below_a_script_the_shell_tells(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    program(tmp_path / "here/sub/prog")
    (tmp_path / "here/t.sh").write_text("#!/bin/sh\nset -e\nsub/prog x\n")
    (tmp_path / "here/t.sh").chmod(0o755)
    run = sweep("./t.sh")
    cell = run.cells["s390x"]
    assert (cell["outcome"], cell["foreign"]) == ("failed", "x86_64")
    assert cell["detail"] == f"sub/{SENTENCE}"
    assert run.cells["x86_64"]["outcome"] == "passed"
    assert "only on" not in run.report


def test_what_lacks_its_interpreter(quizmatrix: Quizmatrix, tmp_path: Path) -> None:
    """The kernel's "no such file" means the interpreter, but a shell says it about the script."""
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    for name, data in (("t.sh", b"#!/bin/bash\ntrue\n"), ("prog", with_loader(bits=64, byte_order="little"))):
        (here / name).write_bytes(data)
        (here / name).chmod(0o755)
    done = quizmatrix(*only("6.1-x86_64", "./t.sh"))
    assert done.returncode == 127
    assert (
        "failed (127): ./t.sh needs /bin/bash, which the guest does not have (take a Debian: --image debian)"
    ) in done.stderr.decode()
    # The message comes from a script, and is about a loader.
    done = quizmatrix(*only("6.1-x86_64", "./prog; nosuch; ls ./none; exit 3"))
    assert done.returncode == 3
    assert (
        "failed (3): ./prog needs /lib/ld.so, which the guest does not have "
        "(link it with -static, or take a Debian: --image debian)"
    ) in done.stderr.decode()
