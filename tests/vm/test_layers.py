"""The user's layers: the standing one is in every run, those of --layer only in theirs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.vm.conftest import Sweep

CELL = "6.1-s390x"
SCRIPT = "cat /opt/*; ls /opt | wc -l"


def test_layers_of_runs_at_the_same_time(environment: dict[str, str], tmp_path: Path) -> None:
    standing = Path(environment["XDG_DATA_HOME"]) / "quizmatrix/layer/opt"
    standing.mkdir(parents=True)
    (standing / "every").write_text("every run\n")
    for name in ("one", "two"):
        (tmp_path / name / "opt").mkdir(parents=True)
        (tmp_path / name / "opt" / name).write_text(f"run {name}\n")

    def start(name: str) -> subprocess.Popen[bytes]:
        argv = ["run", "--only", CELL, "--layer", str(tmp_path / name), "--no-work-tree", "--", SCRIPT]
        return subprocess.Popen(
            [sys.executable, "-m", "quizmatrix", *argv], env=environment, stdout=subprocess.PIPE
        )

    with start("one") as one, start("two") as two:
        said = [child.communicate()[0].decode().split("\n") for child in (one, two)]
    assert said == [["every run", "run one", "2", ""], ["every run", "run two", "2", ""]]
    (tmp_path / "one/opt/one").write_text("changed\n")
    with start("one") as again:
        assert again.communicate()[0].decode().split("\n")[1] == "changed"


MERGED = """set -e
    for name in bin sbin lib lib64; do [ "$(readlink /$name)" = usr/$name ]; done
    modprobe loop
    in-bin; in-sbin; in-standing; in-profile
    cat /lib/firmware/common /usr/lib/firmware/lower /lib64/library
    cat /lib/bound/file /bin/bound/file /var/run/bound/file
    echo anew >/lib/firmware/made; mv /lib/firmware/made /usr/lib/firmware/kept; rm /lib/firmware/lower
    ls /lib/firmware; cat /tmp/of-a-layer"""


def test_a_layer_with_folders_of_a_merged_usr(
    sweep: Callable[..., Sweep], environment: dict[str, str], tmp_path: Path
) -> None:
    """Layouts of `make modules_install INSTALL_MOD_PATH=...` and of packages hide nothing of the guest's."""

    def program(path: Path) -> None:
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\necho {path.name}\n")
        path.chmod(0o755)

    def file(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    lower, upper, bound = (tmp_path / name for name in ("lower", "upper", "bound"))
    program(lower / "bin/in-bin")
    program(upper / "sbin/in-sbin")
    program(Path(environment["XDG_DATA_HOME"]) / "quizmatrix/layer/bin/in-standing")
    profile = tmp_path / "config/profiles/mine"
    program(profile / "files/bin/in-profile")
    file(profile / "profile.toml", 'summary = "a program"')
    for layer, name in ((lower, "lower"), (upper, "upper")):
        file(layer / "lib/firmware/common", f"common of {name}")
        file(layer / f"lib/firmware/{name}", name)
    file(upper / "lib64/library", "library")
    file(upper / "tmp/of-a-layer", "of a layer")
    file(upper / "var/run/hides", "nothing")
    file(bound / "file", "bound")
    places = ("/lib/bound:ro", "/bin/bound:ro", "/var/run/bound:ro")
    options = ["--layer", str(lower), "--layer", str(upper), "-p", "mine"]
    for place in places:
        options += ["--bind", f"{bound}:{place}"]
    # The work tree is in /tmp here, and has to be there, too.
    done = sweep(
        MERGED, options=tuple(options), env=environment | {"QUIZMATRIX_CONFIG_DIR": str(tmp_path / "config")}
    )
    programs = "in-bin\nin-sbin\nin-standing\nin-profile\n"
    files = "common of upper\nlower\nlibrary\nbound\nbound\nbound\n"
    for cell in done.cells.values():
        folder = done.folder / cell["cell"]
        said = (folder / "stdout").read_text() + (folder / "stderr").read_text()
        assert said == f"{programs}{files}common\nkept\nupper\nof a layer\n", done.report
    assert (lower / "lib/firmware/lower").exists()
