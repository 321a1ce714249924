"""Kernel sources: a server laid out like kernel.org, tarballs, repositories."""

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from quizmatrix.core.errors import NotFetchedError, UnpreparedError, UsageError
from quizmatrix.kernel import artifact, kernelorg, source
from quizmatrix.kernel.build import builds_dir
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import SOURCE_TREES
from quizmatrix.model.arch import load_arch

X86_64 = load_arch("x86_64")


def obtain(text: str, said: list[str] | None = None, **policy: bool) -> artifact.Kernel:
    tell = (said if said is not None else []).append

    async def play() -> artifact.Kernel:
        return await source.obtain(text, Order(arch=X86_64, tell=tell), **policy)

    return anyio.run(play)


def pack(tree: Path, archive: Path, version: str = "6.1.9") -> bytes:
    """The tree as `linux-VERSION.tar.*`, and the archive's content."""
    top = tree.rename(tree.with_name(f"linux-{version}"))
    subprocess.run(["tar", "--force-local", "-caf", archive, "-C", top.parent, top.name], check=True)
    top.rename(tree)
    return archive.read_bytes()


class Site:
    """A kernel.org on this host. files: its files. cut: an archive's transfer ends after so many bytes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.asked: list[tuple[str, str | None]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                site.asked.append((self.path, wanted))
                data = site.files.get(self.path)
                if data is None:
                    return self.send_error(404)
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                if start >= len(data) > 0:
                    return self.send_error(416)
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                whole = site.cut is None or not self.path.endswith(".xz")
                self.wfile.write(data[start:] if whole else data[start : start + (site.cut or 0)])
                self.close_connection = True
                return None

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def gpg(self, *argv: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--homedir", str(self.home), *argv]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    def release(self, version: str, archive: bytes) -> None:
        """Add a release, and sign the list of all releases."""
        self.files[f"/v6.x/linux-{version}.tar.xz"] = archive
        self.sign({name: data for name, data in self.files.items() if name.endswith(".tar.xz")})

    def sign(self, files: dict[str, bytes]) -> None:
        lines = [
            f"{hashlib.sha256(data).hexdigest()}  {name.rpartition('/')[2]}\n" for name, data in files.items()
        ]
        self.files["/v6.x/sha256sums.asc"] = self.gpg("--clearsign", data="".join(lines).encode())


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A keyring with one key to sign with."""
    # gpg-agent's socket takes no long path.
    home = tmp_path_factory.mktemp("k")
    make = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", ""]
    subprocess.run([*make, "--quick-generate-key", "T <t@example.org>", "rsa2048", "sign"], check=True)
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@pytest.fixture
def site(toy: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    site = Site(keys)
    (tmp_path / "key.asc").write_bytes(site.gpg("--armor", "--export"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/kernel.org.toml").write_text(
        f'base = "{site.address}"\nkeyring = "{tmp_path}/key.asc"\n'
        f'candidate = "{site.address}/t/linux-{{version}}.tar.gz"\n'
    )
    site.release("6.1.9", pack(toy, tmp_path / "linux.tar.xz"))
    yield site
    site.server.shutdown()
    site.server.server_close()


def test_a_release_is_fetched_checked_built_and_kept(site: Site) -> None:
    kernel = obtain("kernel.org:6.1.9")
    assert kernel.record.release == "6.1.9-toy"
    assert kernel.record.packages == ["kernel.org linux-6.1.9"]
    count = len(site.asked)
    assert obtain("kernel.org:6.1.9").record.key == kernel.record.key
    assert len(site.asked) == count
    assert [path.name for path in SOURCE_TREES.root.iterdir()] == [f"kernel.org-linux-6.1.9-{sums(site)}"]


def sums(site: Site) -> str:
    return hashlib.sha256(site.files["/v6.x/linux-6.1.9.tar.xz"]).hexdigest()[:12]


def test_a_series_is_its_newest_release(site: Site, toy: Path, tmp_path: Path) -> None:
    makefile = toy / "Makefile"
    makefile.write_text(makefile.read_text().replace("SUBLEVEL = 9", "SUBLEVEL = 10"))
    site.release("6.1.10", pack(toy, tmp_path / "10.tar.xz", "6.1.10"))
    assert obtain("kernel.org:6.1").record.version == "6.1.10"


def test_what_kernel_org_has(site: Site) -> None:
    site.sign(dict.fromkeys(("linux-6.1.9.tar.xz", "linux-6.1.10.tar.xz", "linux-6.12.tar.xz"), b""))

    async def ask(series: str) -> list[tuple[str, str]]:
        found = await kernelorg.available(series, [], lambda _text: None)
        return [(one.kernel, one.version) for one in found]

    assert anyio.run(ask, "") == [("kernel.org:6.12", "6.12"), ("kernel.org:6.1", "6.1.10")]
    assert anyio.run(ask, "6.1") == [("kernel.org:6.1", "6.1.10"), ("kernel.org:6.1.9", "6.1.9")]
    assert anyio.run(ask, "6.2") == []


@pytest.mark.parametrize("wanted", ["6.1.8", "6.2", "5.10"])
def test_a_version_that_does_not_exist(wanted: str, site: Site) -> None:
    with pytest.raises(UnpreparedError, match=f"kernel.org has no release {wanted}"):
        obtain(f"kernel.org:{wanted}")
    assert site.asked


def test_a_list_that_is_signed_by_somebody_else(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "config/kernel.org.toml"
    config.write_text(f'base = "{site.address}"\n')  # kernel.org's own key has not signed this
    with pytest.raises(NotFetchedError, match=r"signature .* is not good") as caught:
        obtain("kernel.org:6.1.9")
    assert "No public key" in caught.value.cause


def test_a_list_that_was_changed_after_it_was_signed(site: Site) -> None:
    signed = site.files["/v6.x/sha256sums.asc"]
    site.files["/v6.x/sha256sums.asc"] = signed.replace(b"linux-6.1.9", b"linux-6.1.8")
    with pytest.raises(NotFetchedError, match=r"signature .* is not good") as caught:
        obtain("kernel.org:6.1.8")
    assert "BAD signature" in caught.value.cause


def test_what_stands_outside_of_the_signature_counts_for_nothing(site: Site) -> None:
    digest = "0" * 64
    site.files["/v6.x/sha256sums.asc"] += f"\n{digest}  linux-6.1.11.tar.xz\n".encode()
    assert obtain("kernel.org:6.1").record.version == "6.1.9"


def test_another_tarball_than_was_signed(site: Site) -> None:
    site.files["/v6.x/linux-6.1.9.tar.xz"] += b"more"
    with pytest.raises(NotFetchedError, match=r"its SHA-256 is \w{64}, not"):
        obtain("kernel.org:6.1.9")
    assert not [path for path in SOURCE_TREES.root.iterdir() if path.is_dir()]
    assert artifact.KERNELS.stored() == []


def test_a_transfer_that_breaks_off_goes_on_where_it_was(site: Site) -> None:
    data = site.files["/v6.x/linux-6.1.9.tar.xz"]
    site.cut = len(data) // 2 + 1
    said: list[str] = []
    assert obtain("kernel.org:6.1.9", said).record.version == "6.1.9"
    assert [asked for _, asked in site.asked if asked] == [f"bytes={site.cut}-"]
    assert any("continuing" in line for line in said)


def test_an_earlier_tries_part_is_continued_and_a_wrong_one_is_not_trusted(site: Site) -> None:
    data = site.files["/v6.x/linux-6.1.9.tar.xz"]
    SOURCE_TREES.root.mkdir(parents=True)
    part = SOURCE_TREES.root / "linux-6.1.9.tar.xz.part"
    part.write_bytes(b"x" * 100)
    assert obtain("kernel.org:6.1.9").record.version == "6.1.9"
    assert [asked for path, asked in site.asked if path.endswith(".xz")] == ["bytes=100-", None]
    assert len(data) > 100


def test_a_server_that_is_not_there(site: Site, tmp_path: Path) -> None:
    (tmp_path / "config/kernel.org.toml").write_text('base = "http://127.0.0.1:1"\n')
    with pytest.raises(NotFetchedError, match=r"could not fetch http://127.0.0.1:1/v6.x/sha256sums.asc"):
        obtain("kernel.org:6.1.9")
    assert site.asked == []


def test_a_candidate_comes_unsigned_and_says_so(site: Site, toy: Path, tmp_path: Path) -> None:
    makefile = toy / "Makefile"
    makefile.write_text(
        makefile.read_text()
        .replace("PATCHLEVEL = 1", "PATCHLEVEL = 2")
        .replace("SUBLEVEL = 9", "SUBLEVEL = 0")
        .replace("EXTRAVERSION =", "EXTRAVERSION = -rc3")
    )
    site.files["/t/linux-6.2-rc3.tar.gz"] = pack(toy, tmp_path / "rc.tar.gz", "6.2-rc3")
    said: list[str] = []
    assert obtain("kernel.org:6.2-rc3", said).record.version == "6.2-rc3"
    assert "does not sign" in said[0]


def test_a_tarball(toy: Path, tmp_path: Path) -> None:
    archive = tmp_path / "my:own.tar.xz"
    pack(toy, archive)
    text = f"tarball:{archive}"
    kernel = obtain(text, offline=True)
    assert kernel.record.version == "6.1.9"
    (toy / "toy.c").write_text((toy / "toy.c").read_text() + "\n")
    pack(toy, archive)
    assert obtain(text, offline=True).record.key != kernel.record.key


def test_a_tarball_that_is_cut_short(toy: Path, tmp_path: Path) -> None:
    data = pack(toy, tmp_path / "my.tar.xz")
    (tmp_path / "my.tar.xz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnpreparedError, match=r"my.tar.xz could not be unpacked") as caught:
        obtain(f"tarball:{tmp_path / 'my.tar.xz'}")
    assert "Unexpected end of input" in caught.value.cause
    assert list(SOURCE_TREES.root.iterdir()) == []


def test_a_tarball_of_something_else(toy: Path, tmp_path: Path) -> None:
    (toy / "Makefile").write_text("all:\n")
    pack(toy, tmp_path / "my.tar.xz")
    with pytest.raises(UnpreparedError, match="holds no kernel source"):
        obtain(f"tarball:{tmp_path / 'my.tar.xz'}")


@pytest.fixture
def repository(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy kernel as two commits: `first`, and `main` with a change of one file."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "T")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@example.org")
    git(toy, "init", "--quiet", "--initial-branch=main")
    commit(toy)
    git(toy, "tag", "first")
    with (toy / "toy.c").open("a") as file:
        file.write("/* second */\n")
    commit(toy)
    return toy


def git(place: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", place, *words], check=True, capture_output=True, env=dict(os.environ))
    return done.stdout.decode().strip()


def commit(place: Path) -> None:
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message=x")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("form", ["git:{}#{}", "git:file://{}#{}"])
def test_commits_of_a_repository_that_is_only_read(form: str, repository: Path) -> None:
    before = contents(repository)
    first = obtain(form.format(repository, "first"))
    second = obtain(form.format(repository, "main"))
    assert first.record.key != second.record.key
    # All commits share one build folder: files that a commit does not change are not compiled again.
    (place,) = builds_dir().glob("*/count")
    assert place.read_text() == "built\nbuilt\n"
    assert obtain(form.format(repository, "first")).record.key == first.record.key
    assert contents(repository) == before


def test_a_branch_that_moved_is_built_again(repository: Path) -> None:
    text = f"git:{repository}#main"
    before = obtain(text, offline=True)
    (repository / "toy.c").write_text("int main(void) { return 1; }\n")
    assert obtain(text, offline=True).record.key == before.record.key
    commit(repository)
    assert obtain(text, offline=True).record.key != before.record.key


def test_a_commit_that_is_not_there(repository: Path) -> None:
    with pytest.raises(NotFetchedError, match="has no commit `nope`"):
        obtain(f"git:{repository}#nope")
    with pytest.raises(NotFetchedError, match="git fetch failed") as caught:
        obtain(f"git:file://{repository}#nope")
    assert "nope" in caught.value.cause


def test_a_repository_that_is_none(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown kernel") as caught:
        source.parse_spec(f"git:{tmp_path}/nowhere#main")
    assert "there is no folder" in caught.value.cause
    with pytest.raises(NotFetchedError) as failure:
        obtain(f"git:{toy}#main")
    assert "not a git repository" in failure.value.cause
