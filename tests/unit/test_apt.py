"""Debian packages through apt, from an archive made by the tests and served over HTTP."""

import functools
import hashlib
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import anyio
import pytest

from quizmatrix.cli import run_command
from quizmatrix.core import paths
from quizmatrix.core.errors import DataError, HostError, NotFetchedError, NotInArchiveError
from quizmatrix.debian.apt import AptRoot, Package, unpack
from quizmatrix.kernel import source
from quizmatrix.kernel.order import Order
from quizmatrix.model.arch import load_arch
from quizmatrix.model.archive import Archive, Suite, load_archive

KERNELS = ("4.99.2", "4.99.10")

pytestmark = pytest.mark.skipif(shutil.which("gpg-agent") is None, reason="gpg signs the archive")


class Mirror:
    """A signed archive of one package and two kernels."""

    def __init__(self, folder: Path, home: Path) -> None:
        """home: gpg's home directory."""
        self.folder = folder
        self.home = home
        self.dist = folder / "dists/test"
        self.deb = self.build("tiny", "1.0", "all", ["usr/share/tiny/file"])
        self.kernels = [self.build_kernel(version) for version in KERNELS]
        self.gpg("--passphrase", "", "--quick-generate-key", "Test <test@example.org>", "default", "default")
        self.keyring = home / "keyring.gpg"
        self.keyring.write_bytes(self.gpg("--export"))
        self.publish()

    def build(self, name: str, version: str, arch: str, files: list[str]) -> Path:
        """Add a package to the pool."""
        tree = self.home / name
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_text("content\n")
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
            "Maintainer: me <me@example.org>\nDescription: made here\n"
        )
        deb = self.folder / f"pool/{name}_{version}_{arch}.deb"
        deb.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, capture_output=True)
        return deb

    def build_kernel(self, version: str) -> Path:
        """Add a package with the layout of a kernel's."""
        release = f"{version}-s390x"
        files = [f"boot/{name}-{release}" for name in ("vmlinuz", "config", "System.map")]
        index = f"lib/modules/{release}/modules.order"
        return self.build(f"linux-image-{release}", f"{version}-1", "s390x", [*files, index])

    def gpg(self, *argv: str) -> bytes:
        command = [
            "gpg",
            "--homedir",
            str(self.home),
            "--batch",
            "--yes",
            "--pinentry-mode",
            "loopback",
            *argv,
        ]
        return subprocess.run(command, check=True, capture_output=True).stdout

    def publish(self) -> None:
        """Write and sign the index of the packages."""
        stanzas = []
        for deb in (self.deb, *self.kernels):
            data = deb.read_bytes()
            name, version, arch = deb.stem.split("_")
            stanzas.append(
                f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
                f"Maintainer: me <me@example.org>\nFilename: pool/{deb.name}\nSize: {len(data)}\n"
                f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: made here\n"
            )
        packages = "\n".join(stanzas).encode()
        index = self.dist / "main/binary-s390x/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_bytes(packages)
        release = (
            f"Origin: Test\nSuite: test\nCodename: test\nDate: {formatdate(usegmt=True)}\n"
            f"Architectures: s390x\nComponents: main\nSHA256:\n"
            f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-s390x/Packages\n"
        )
        (self.dist / "Release").write_text(release)
        self.gpg("--clearsign", "--output", str(self.dist / "InRelease"), str(self.dist / "Release"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """One archive for all tests, since making a key takes a moment."""
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    mirror = Mirror(tmp_path_factory.mktemp("mirror"), home)
    yield mirror
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.fixture
def mirror(made: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Mirror, Archive]]:
    """The archive, served over HTTP; a test may change its files."""
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    whole = {deb: deb.read_bytes() for deb in (made.deb, *made.kernels)}

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(made.folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    suite = Suite(mirrors=[f"http://127.0.0.1:{server.server_port}"], arches=["s390x"])
    yield made, Archive(keyring=str(made.keyring), suite={"test": suite})
    server.shutdown()
    thread.join()
    server.server_close()
    for deb, data in whole.items():
        deb.write_bytes(data)
    made.publish()


def fetch(archive: Archive, into: Path) -> list[Path]:
    async def play() -> list[Path]:
        root = AptRoot(archive, "test", "s390x")
        await root.update()
        packages: list[Package] = await root.show("tiny")
        assert await root.names("ti") == ["tiny"]
        into.mkdir()
        return await root.download(packages, into)

    return anyio.run(play)


def test_a_package_is_fetched_and_unpacked(mirror: tuple[Mirror, Archive], tmp_path: Path) -> None:
    (found,) = fetch(mirror[1], tmp_path / "in")
    assert found.read_bytes() == mirror[0].deb.read_bytes()
    anyio.run(unpack, [found], tmp_path / "out")
    assert (tmp_path / "out/usr/share/tiny/file").read_text() == "content\n"


@pytest.mark.parametrize("spoil", ["tampered", "truncated", "missing"])
def test_a_package_that_is_not_what_was_signed(
    spoil: str, mirror: tuple[Mirror, Archive], tmp_path: Path
) -> None:
    deb = mirror[0].deb
    data = deb.read_bytes()
    if spoil == "missing":
        deb.unlink()
    else:
        deb.write_bytes(data[:-10] + b"X" * 10 if spoil == "tampered" else data[:-100])
    with pytest.raises(NotFetchedError, match="could not fetch tiny=") as caught:
        fetch(mirror[1], tmp_path / "in")
    assert caught.value.cause
    assert caught.value.next_step
    assert isinstance(caught.value, NotInArchiveError) == (spoil == "missing")


def test_an_index_that_was_changed(mirror: tuple[Mirror, Archive], tmp_path: Path) -> None:
    index = mirror[0].dist / "main/binary-s390x/Packages"
    index.write_text(index.read_text().replace("1.0", "6.6"))
    with pytest.raises(NotFetchedError, match="index of Debian's test"):
        fetch(mirror[1], tmp_path / "in")


def test_an_index_that_somebody_else_signed(mirror: tuple[Mirror, Archive], tmp_path: Path) -> None:
    signed = mirror[0].dist / "InRelease"
    signed.write_text(signed.read_text().replace("Origin: Test", "Origin: Evil"))
    with pytest.raises(NotFetchedError) as caught:
        fetch(mirror[1], tmp_path / "in")
    assert caught.value.cause


def test_a_suite_with_a_name_and_a_keyring_of_its_own(mirror: tuple[Mirror, Archive], tmp_path: Path) -> None:
    given = mirror[1].suite["test"]
    ports = Suite(name="test", keyring=mirror[1].keyring, mirrors=given.mirrors, arches=["s390x"])
    archive = Archive(keyring=str(tmp_path / "none.gpg"), suite={"test": ports})
    assert fetch(archive, tmp_path / "in")
    renamed = Suite(name="other", keyring=mirror[1].keyring, mirrors=given.mirrors, arches=["s390x"])
    with pytest.raises(NotFetchedError, match="other"):
        fetch(Archive(suite={"test": renamed}), tmp_path / "in2")


def test_a_keyring_that_is_not_there(mirror: tuple[Mirror, Archive], tmp_path: Path) -> None:
    lacking = Archive(keyring=str(tmp_path / "none.gpg"), suite=mirror[1].suite)
    with pytest.raises(HostError, match="keyring is not at"):
        fetch(lacking, tmp_path / "in")


def test_a_mirror_that_is_not_there(tmp_path: Path, mirror: tuple[Mirror, Archive]) -> None:
    nowhere = Suite(mirrors=["http://127.0.0.1:9"], arches=["s390x"])
    with pytest.raises(NotFetchedError) as caught:
        fetch(Archive(keyring=mirror[1].keyring, suite={"test": nowhere}), tmp_path / "in")
    assert "debian.toml" in caught.value.next_step


@pytest.fixture
def kernels(mirror: tuple[Mirror, Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """The archive, configured by the user as the only suite for the series 4.99."""
    made, archive = mirror
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))
    # So that nothing but this archive is asked.
    (tmp_path / "kernel.org.toml").write_text('base = "http://127.0.0.1:9"\n')
    (tmp_path / "debian.toml").write_text(
        f'[suite.test]\nkeyring = "{archive.keyring}"\nmirrors = ["{archive.suite["test"].mirrors[0]}"]\n'
        'arches = ["s390x"]\ncomponents = ["main"]\nseries = ["4.99"]\n'
    )
    return made


def obtain(text: str, *, refresh: bool = False) -> tuple[str, list[str]]:
    """The release of the kernel, and the progress messages."""
    told: list[str] = []
    order = Order(arch=load_arch("s390x"), tell=told.append)

    async def play() -> str:
        return (await source.obtain(text, order, refresh=refresh)).record.release

    return anyio.run(play), told


def test_a_users_file_replaces_single_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))
    shipped = load_archive()
    (tmp_path / "debian.toml").write_text(
        '[suite.bookworm]\nmirrors = ["http://mirror.example.org/debian"]\n'
    )
    mine = load_archive()
    assert mine.suite["bookworm"].mirrors == ["http://mirror.example.org/debian"]
    assert mine.suite["bookworm"].series == shipped.suite["bookworm"].series
    assert mine.suite["sid"] == shipped.suite["sid"]
    assert mine.keyring == shipped.keyring
    (tmp_path / "debian.toml").write_text("[suite.bookwrm]\nmirrors = []\n")
    with pytest.raises(DataError, match="line 1") as caught:
        load_archive()
    assert "`suite.bookwrm`" in caught.value.cause


def test_the_newest_kernel_of_a_series(kernels: Mirror) -> None:
    assert obtain("debian:4.99")[0] == "4.99.10-s390x"


def test_what_can_be_had_is_listed_and_kept(kernels: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["kernel", "list", "--available", "4.99", "-a", "s390x,ppc64"]
    assert run_command(ask) == 0
    said = capsys.readouterr()
    rows = [line.split("  ") for line in said.out.splitlines() if "Debian" in line]
    found = [[word.strip() for word in row if word] for row in rows]
    assert found == [
        ["4.99", "4.99.10", "s390x", "Debian's test", "ready-made"],
        ["debian:4.99.2", "4.99.2", "s390x", "Debian's test", "ready-made"],
    ]
    assert "asking" not in said.err
    # Nobody is asked any more.
    (paths.config_dir() / "debian.toml").write_text("[suite.test]\nmirrors = []\narches = []\n")
    assert run_command([*ask, "--offline"]) == 0
    again = capsys.readouterr()
    assert again.out == said.out
    assert "this was known on 20" in again.err
    assert run_command(["kernel", "list", "--available", "4.99", "-a", "ppc64", "--offline"]) == 0
    assert "No such kernel is known." in capsys.readouterr().out
    assert run_command(["completion", "bash", "--words", "cells"]) == 0
    assert {"4.99-s390x", "debian:4.99.2-s390x", "6.1-x86_64"} <= set(capsys.readouterr().out.split())


def test_a_kernel_that_the_mirror_lacks(kernels: Mirror) -> None:
    kernels.kernels[1].unlink()
    with pytest.raises(NotInArchiveError, match=re.escape("linux-image-4.99.10-s390x=")):
        obtain("debian:4.99.10")
    release, told = obtain("debian:4.99")
    assert release == "4.99.2-s390x"
    assert any("404" in line and "taking linux-image-4.99.2-s390x 4.99.2-1 instead" in line for line in told)


def test_what_the_cache_has_is_not_replaced_by_something_older(kernels: Mirror) -> None:
    newest = kernels.kernels.pop()
    kernels.publish()
    assert obtain("debian:4.99")[0] == "4.99.2-s390x"
    kernels.kernels.append(newest)
    kernels.publish()
    shutil.rmtree(paths.cache_dir() / "apt")
    newest.unlink()
    release, told = obtain("debian:4.99", refresh=True)
    assert release == "4.99.2-s390x"
    assert "404" in told[-1]
    assert told[-1].endswith("; keeping 4.99.2-s390x")


def test_a_kernel_that_is_cut_short_is_not_replaced_by_an_older_one(kernels: Mirror) -> None:
    newest = kernels.kernels[1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.raises(NotFetchedError, match=re.escape("linux-image-4.99.10-s390x=")):
        obtain("debian:4.99")


def test_kernels_none_of_which_the_mirror_has(kernels: Mirror) -> None:
    for deb in kernels.kernels:
        deb.unlink()
    with pytest.raises(NotInArchiveError, match=re.escape("linux-image-4.99.10-s390x=")) as caught:
        obtain("debian:4.99")
    assert "[suite.test]" in caught.value.next_step
