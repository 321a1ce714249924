"""Debian packages through apt, from an archive made here and served over HTTP."""

import functools
import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import anyio
import pytest

from quizmatrix.apt import AptRoot, Archive, Package, Suite, unpack
from quizmatrix.errors import HostError, NotFetchedError

pytestmark = pytest.mark.skipif(shutil.which("gpg-agent") is None, reason="gpg signs the archive")


class Mirror:
    """A signed archive of one package."""

    def __init__(self, folder: Path, home: Path) -> None:
        """`home`: gpg's."""
        self.folder = folder
        self.home = home
        self.dist = folder / "dists/test"
        self.deb = folder / "pool/tiny_1.0_all.deb"
        tree = home / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/share/tiny").mkdir(parents=True)
        (tree / "usr/share/tiny/file").write_text("content\n")
        (tree / "DEBIAN/control").write_text(
            "Package: tiny\nVersion: 1.0\nArchitecture: all\n"
            "Maintainer: me <me@example.org>\nDescription: tiny\n"
        )
        self.deb.parent.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "--build", tree, self.deb], check=True, capture_output=True)
        self.gpg("--passphrase", "", "--quick-generate-key", "Test <test@example.org>", "default", "default")
        self.keyring = home / "keyring.gpg"
        self.keyring.write_bytes(self.gpg("--export"))
        self.publish()

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
        """Write and sign the index of what is in the pool."""
        data = self.deb.read_bytes()
        packages = (
            "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: me <me@example.org>\n"
            f"Filename: pool/{self.deb.name}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: tiny\n"
        ).encode()
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
    """Making a key takes a moment, so there is one archive."""
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    mirror = Mirror(tmp_path_factory.mktemp("mirror"), home)
    yield mirror
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.fixture
def mirror(made: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Mirror, Archive]]:
    """The archive, served; a test may spoil what is in it."""
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    whole = made.deb.read_bytes()

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
    made.deb.write_bytes(whole)
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
