"""The wheel, installed without a checkout, runs cells from any folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
# Folders of the checkout that ship as data.
DATA = ("arch", "guest", "kernel-configs", "matrices")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=TOP, check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and with this one's libraries but nothing of the checkout.

    pip would take the libraries from the network.
    """
    folder = tmp_path_factory.mktemp("environment")
    python = str(folder / "bin/python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True)
    libraries = folder / "libraries"
    libraries.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(place).iterdir():
            if "quizmatrix" not in path.name and path.suffix != ".pth":
                (libraries / path.name).symlink_to(path)
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    (Path(packages) / "libraries.pth").write_text(f"{libraries}\n")
    return folder


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    """Runs a program of the new environment in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"QUIZMATRIX_STATE_DIR": str(tmp_path / "state"), "XDG_DATA_HOME": str(tmp_path / "data")}
    variables["PATH"] = f"{environment / 'bin'}:{variables['PATH']}"

    def start(*argv: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, cwd=here, env=variables, check=True, capture_output=True, **options)

    return start


def test_all_files_are_in_the_wheel(wheel: Path) -> None:
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "quizmatrix", *DATA]
    said = subprocess.run(argv, cwd=TOP, check=True, stdout=subprocess.PIPE, text=True).stdout
    files = {name for name in said.split("\0") if name and (TOP / name).exists()}
    wanted = {name if name.startswith("quizmatrix/") else f"quizmatrix/data/{name}" for name in files}
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.startswith("quizmatrix/")} == wanted


def test_programs_are_programs(environment: Path) -> None:
    """Guests and host halves of profiles start these files."""
    (data,) = environment.glob("lib/python*/site-packages/quizmatrix/data")
    for folder in DATA:
        for path in (TOP / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                installed = data / path.relative_to(TOP)
                assert os.access(installed, os.X_OK) == os.access(path, os.X_OK), installed


def test_nothing_of_the_checkout_is_imported(run: Run, environment: Path) -> None:
    program = "import quizmatrix, sys; print(quizmatrix.__file__, *sys.path, sep='\\n')"
    for place in run("python", "-c", program).stdout.decode().splitlines():
        assert not place.startswith(str(TOP)) or place.startswith(str(environment))


def test_a_cell_runs_from_any_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here/greet").write_text('echo "$QUIZMATRIX_CELL greets $1"; [ -b /dev/quizm0 ]')
    options = ("--only", "6.1-x86_64", "--profiles", "memdev", "--offline", "--html", "report.html")
    done = run("quizmatrix", "run", *options, "--", "sh", "./greet", "a  b")
    assert done.stdout == b"6.1-x86_64 greets a  b\n"
    assert (tmp_path / "here/report.html").read_text().endswith("</html>\n")


def test_matrices_ship(run: Run) -> None:
    assert b"6.1-s390x" in run("quizmatrix", "cells", "quick").stdout


def test_words_are_completed(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_bytes(run("quizmatrix", "completion", "bash").stdout)
    program = """. "$0"; spec=$(complete -p quizmatrix); function=${spec#*-F }
        COMP_WORDS=(quizmatrix ru) COMP_CWORD=1; ${function%% *}; echo "${COMPREPLY[@]}"
        """
    assert run("bash", "-c", program, str(script)).stdout.split() == [b"run", b"runs"]


def test_the_man_page_is_found(run: Run, environment: Path) -> None:
    page = environment / "share/man/man1/quizmatrix.1"
    assert page.read_bytes() == (TOP / "docs/quizmatrix.1").read_bytes()
    if shutil.which("man"):
        shown = run("man", "-M", str(environment / "share/man"), "quizmatrix").stdout.decode()
        assert "quizmatrix run [MATRIX]" in shown
