"""Kernels with a name: [kernel.NAME] of a matrix and of the user, and packages that are downloaded."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from quizmatrix.cli import run_command
from quizmatrix.core import paths
from quizmatrix.core.download import fetch_file
from quizmatrix.core.errors import DamagedError, DataError, NotFetchedError, UnpreparedError
from quizmatrix.kernel import installed, source
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import arch_names, host_arch, load_arch
from quizmatrix.model.cells import Cell, expand
from quizmatrix.model.matrix import load_matrix

DIGEST = "0" * 64
BASE = 'kernels = ["el9", "6.1"]\narches = ["x86_64", "s390x"]\n'
EL9 = '[kernel.el9]\nx86_64 = ["core.rpm", "/srv/a b.rpm", "~/m.rpm"]\n'


def read(text: str, folder: Path) -> list[Cell]:
    path = folder / "m.toml"
    path.write_text(text)
    return expand(load_matrix(path), str(path))


def test_a_name_has_cells_where_it_has_packages(tmp_path: Path) -> None:
    found = {cell.id: cell for cell in read(BASE + EL9, tmp_path)}
    assert list(found) == ["el9-x86_64", "6.1-x86_64", "6.1-s390x"]
    named = found["el9-x86_64"]
    assert named.packages == (f"{tmp_path}/core.rpm", "/srv/a b.rpm", "~/m.rpm")
    assert named.kernel_spec == f"named:el9={tmp_path}/core.rpm '/srv/a b.rpm' '~/m.rpm'"
    assert found["6.1-x86_64"].kernel_spec == "debian:6.1"
    # The matrix's source is of kernels that name none; this one is named.
    (other, *_) = read('source = "kernel.org"\n' + BASE + EL9, tmp_path)
    assert other.kernel_spec == named.kernel_spec


def test_exclude_include_expect_and_limits_know_names(tmp_path: Path) -> None:
    text = (
        BASE
        + 'exclude = [{ kernel = "el*" }]\nexpect = [{ kernel = "el9", outcome = "failed", why = "w" }]\n'
    )
    text += 'include = [{ kernel = "el9", arch = "x86_64", memory = "2G" }]\n' + EL9
    *_, named = read(text, tmp_path)
    assert (named.id, named.memory, named.why, len(named.packages)) == ("el9-x86_64", 2048, "w", 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[kernel."6.1"]\nx86_64 = ["a.rpm"]\n', ["line 3", "`kernel.6.1`", "means another kernel"]),
        ('[kernel.newest]\nx86_64 = ["a.rpm"]\n', ["line 3", "means another kernel"]),
        ('[kernel."a:b"]\nx86_64 = ["a.rpm"]\n', ["`kernel.a:b`", "a name is"]),
        ('[kernel."a..b"]\nx86_64 = ["a.rpm"]\n', ["a name is"]),
        ("[kernel.el9]\n", ["line 3", "it has no packages"]),
        ("[kernel.el9]\nx86_64 = []\n", ["line 4", "`kernel.el9.x86_64`", "empty"]),
        ('[kernel.el9]\nx86 = ["a.rpm"]\n', ["line 4", "unknown architecture `x86`", "x86_64"]),
        ('[kernel.el9]\nnative = ["a.rpm"]\n', ["line 4", "one architecture"]),
        ('[kernel.el9]\nx86_64 = "a.rpm"\n', ["line 4", "array"]),
        ('[kernel.el9]\nx86_64 = ["https://h/a.rpm"]\n', ["line 4", "#sha256=", "curl -L https://h/a.rpm"]),
        ('[kernel.el9]\nx86_64 = ["https://h/a.rpm#sha256=12"]\n', ["line 4", "64 digits"]),
        (f'[kernel.el9]\nx86_64 = ["ftp://h/a.rpm#sha256={DIGEST}"]\n', ["only http and https"]),
        (f'[kernel.el9]\nx86_64 = ["http://h/a#sha256={DIGEST}"]\n', ["ends in neither .deb nor .rpm"]),
        (f'[kernel.el9]\nx86_64 = ["http://h/{"a" * 300}.rpm#sha256={DIGEST}"]\n', ["line 4", "characters"]),
        ('[kernel.el9]\nppc64 = ["a.rpm"]\n', ["has packages for ppc64", "not for x86_64 or s390x"]),
        (
            'include = [{ kernel = "el9", arch = "ppc64" }]\n' + EL9,
            ["el9 has no packages for ppc64", "[kernel.el9] ppc64 = [...]"],
        ),
        (
            'include = [{ kernel = "el9", arch = "x86_64", variant = "kasan" }]\n' + EL9,
            ["el9 cannot be had with the variant kasan"],
        ),
    ],
)
def test_what_is_wrong_with_a_name_is_said(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(BASE + text, tmp_path)
    for word in words:
        assert word in caught.value.render()


def call(capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert run_command(list(argv)) == status
    said = capsys.readouterr()
    return said.err if status else said.out


def test_cells_and_dry_run_show_the_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.toml"
    url = f"https://example.org/m.rpm?x=1#sha256={DIGEST}"
    path.write_text(BASE + f'[kernel.el9]\nx86_64 = ["core.rpm", "{url}"]\n')
    (tmp_path / "core.rpm").touch()
    run = ("run", str(path), "--only", "el9*", "--dry-run", "--", "true")
    for said in (call(capsys, "cells", str(path)), call(capsys, *run)):
        assert f"el9, x86_64:\n  {tmp_path}/core.rpm\n  {url}\n" in said
        assert "s390x" not in said or "el9 has no packages for s390x, and no cell there." in said
    assert '"named:' not in call(capsys, "cells", str(path), "--json")
    (tmp_path / "core.rpm").unlink()
    said = call(capsys, *run, status=125)
    assert "the packages of el9 for x86_64" in said
    assert f"no package {tmp_path}/core.rpm" in said


def test_a_name_that_nobody_gave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BASE.replace("el9", "el8") + EL9)
    assert "Did you mean `el9`?" in call(capsys, "cells", str(path), status=125)
    said = call(capsys, "cells", "--only", "el9-x86_64", status=125)
    assert "unknown kernel `el9`" in said
    assert "[kernel.el9]" in said


def test_the_users_own_names_need_no_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "kernels.toml").write_text('[kernel.el9]\nx86_64 = ["core.rpm"]\n')
    (tmp_path / "core.rpm").touch()
    for choice in (("--only", "el9-x86_64"), ("-k", "el9")):
        said = call(capsys, "cells", *choice)
        assert "el9-x86_64" in said
        assert f"{tmp_path}/core.rpm" in said
    assert "el9-s390x" not in said
    assert "el9 has no packages for s390x" in call(capsys, "cells", "--only", "el9-s390x", status=125)
    rows = [line.split() for line in call(capsys, "kernel", "list", "--available", "--offline").splitlines()]
    assert ["el9", "its", "packages", "x86_64", str(tmp_path / "kernels.toml"), "ready-made"] in rows
    assert "el9-x86_64" in call(capsys, "completion", "bash", "--words", "cells").split()
    # A matrix's own name comes first.
    (tmp_path / "m.toml").write_text(BASE + '[kernel.el9]\ns390x = ["other.deb"]\n')
    (tmp_path / "other.deb").touch()
    assert "el9-s390x" in call(capsys, "cells", str(tmp_path / "m.toml"))
    (tmp_path / "kernels.toml").write_text("[kernel.el9]\nx86_64 = []\n")
    assert "kernels.toml, line 2" in call(capsys, "cells", status=125)


class Server:
    """Serves files over HTTP. asked: the paths that were asked for. /moved/X leads to /X."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                outer.asked.append(path)
                if self.path.startswith("/moved/"):
                    self.send_response(302)
                    self.send_header("Location", self.path.removeprefix("/moved"))
                    self.end_headers()
                    return
                data = outer.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, name: str, digest: str = "") -> str:
        digest = digest or hashlib.sha256(self.files["/core.rpm"]).hexdigest()
        return f"http://127.0.0.1:{self.http.server_port}/{name}#sha256={digest}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    server.files["/core.rpm"] = b"not a package at all"
    yield server
    server.http.shutdown()
    server.http.server_close()


def obtain(url: str, *, offline: bool = False) -> None:
    order = Order(arch=load_arch("x86_64"), tell=lambda _text: None)

    async def play() -> None:
        await source.obtain(f"named:el9={url}", order, offline=offline)

    anyio.run(play)


def test_a_download_without_end(server: Server, tmp_path: Path) -> None:
    url = server.url("core.rpm").partition("#")[0]
    with pytest.raises(NotFetchedError, match="it has more than 10 bytes"):
        anyio.run(partial(fetch_file, f"{url}?of=/../x", tmp_path, print, at_most=10))
    assert list(tmp_path.iterdir()) == []
    anyio.run(partial(fetch_file, f"{url}?of=/../x", tmp_path, print, at_most=20))
    assert [path.name for path in tmp_path.iterdir()] == ["core.rpm"]


def test_a_download_with_another_hash_is_refused_and_not_kept(server: Server) -> None:
    with pytest.raises(NotFetchedError, match=f"its SHA-256 is [0-9a-f]{{64}}, not {DIGEST}") as caught:
        obtain(server.url("core.rpm", DIGEST))
    assert "the matrix needs its new SHA-256" in caught.value.next_step
    assert not [path for path in (paths.cache_dir() / "packages").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["core.rpm", "core.rpm?token=1", "moved/core.rpm"])
def test_a_download_is_made_once(name: str, server: Server) -> None:
    url = server.url(name)
    with pytest.raises(UnpreparedError, match="not in the cache"):
        obtain(url, offline=True)
    assert server.asked == []
    for offline in (False, False, True):
        with pytest.raises(DamagedError, match=r"core\.rpm"):
            obtain(url, offline=offline)
    assert server.asked.count("/core.rpm") == 1
    # What was damaged since is fetched again.
    (kept,) = (paths.cache_dir() / "packages").rglob("core.rpm")
    kept.write_bytes(b"other")
    with pytest.raises(UnpreparedError, match=r"core\.rpm is damaged in the cache: --offline forbids"):
        obtain(url, offline=True)
    with pytest.raises(DamagedError, match=r"core\.rpm"):
        obtain(url)
    assert server.asked.count("/core.rpm") == 2
    assert kept.read_bytes() == server.files["/core.rpm"]


def test_what_this_machine_has(tmp_path: Path) -> None:
    for release in ("6.1.0-9-amd64", "6.12.1-mine"):
        (tmp_path / "lib/modules" / release).mkdir(parents=True)
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / f"boot/vmlinuz-{release}").touch()
    available = installed.source_in(tmp_path).available
    assert available is not None

    async def ask(series: str, arch: str) -> list[tuple[str, str]]:
        found = await available(series, [load_arch(arch)], lambda _text: None)
        return [(one.kernel, one.version) for one in found]

    old = ("installed:6.1.0-9-amd64", "6.1.0-9-amd64")
    assert anyio.run(ask, "", host_arch().name) == [("installed", "6.12.1-mine"), old]
    assert anyio.run(ask, "6.1", host_arch().name) == [old]
    foreign = next(name for name in arch_names() if not load_arch(name).is_native)
    assert anyio.run(ask, "", foreign) == []
