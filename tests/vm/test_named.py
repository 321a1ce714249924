"""A kernel with a name, whose packages are a file and a download, is run under its name."""

import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quizmatrix.core import paths
from tests.vm.conftest import Quizmatrix
from tests.vm.test_kernel_files import kernel_of, ubuntu

ARCH = "s390x"


@pytest.fixture
def matrix(tmp_path: Path) -> Iterator[str]:
    """The text of a matrix with the name `mine`. What was downloaded for it is removed."""
    image, modules = sorted(ubuntu(ARCH, tmp_path / "ubuntu").iterdir())
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(image.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{image.name}#sha256={digest}"
    relative = f"../ubuntu/packages/{modules.name}"
    yield (
        f'kernels = ["mine"]\narches = ["x86_64", "{ARCH}"]\n'
        f'[kernel.mine]\n{ARCH} = ["{relative}", "{url}"]\n'
    )
    server.shutdown()
    server.server_close()
    shutil.rmtree(paths.cache_dir() / "packages" / digest, ignore_errors=True)


def test_a_kernel_is_run_by_its_name(quizmatrix: Quizmatrix, matrix: str, tmp_path: Path) -> None:
    (tmp_path / "here/m.toml").write_text(matrix)
    output = tmp_path / "run"
    done = quizmatrix("run", "m.toml", "--output", str(output), "--", "uname", "-r")
    release = f"{kernel_of(ARCH).record.release}\n".encode()
    assert (done.stdout, done.returncode) == (release, 0), done.stderr.decode()
    try:
        (cell,) = json.loads((output / "results.json").read_bytes())["cells"]
        assert (cell["cell"], cell["kernel"]) == ("mine-s390x", "mine")
        # The command that repeats the cell, and --last-failed, find the matrix again; nothing is fetched.
        again = cell["again"]
        assert again["argv"][:3] == ["quizmatrix", "run", "m.toml"]
        done = quizmatrix(*again["argv"][1:], cwd=again["folder"])
        assert (done.stdout, done.returncode) == (release, 0)
        assert b"fetching" not in done.stderr
        done = quizmatrix("run", "--last-failed", "--offline", "--dry-run")
        assert b"mine-s390x" in done.stdout, done.stderr.decode()
        assert b"mine-s390x" in quizmatrix("completion", "bash", "--words", "stored").stdout
    finally:
        removed = quizmatrix("kernel", "remove", "mine-s390x")
    assert b"removed " in removed.stdout, removed.stderr.decode()
