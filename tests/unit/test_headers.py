"""Build trees of ready-made kernels, from an archive made by the tests: headers, and a compiler."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import anyio
import msgspec
import pytest

from quizmatrix.cli import run_command
from quizmatrix.core import elf, paths
from quizmatrix.core.errors import DamagedError, NotInArchiveError, UnpreparedError
from quizmatrix.debian import foreign
from quizmatrix.debian.foreign import Runtime
from quizmatrix.kernel import buildtree, headers, source, toolchain
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import TREES
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.toolchain import TOOLCHAINS
from quizmatrix.model.arch import host_arch, load_arch

needs_archive = pytest.mark.skipif(
    shutil.which("gpg-agent") is None or host_arch().facts.debian is None, reason="gpg signs the archive"
)

# A program of this host's, and what it runs with.
PROGRAM = Path("/usr/bin/true")
LOADER = elf.interpreter_of(PROGRAM) or ""
TRIPLE = host_arch().facts.cross_prefix.removesuffix("-")
LIBC = Path(f"/lib/{TRIPLE}/libc.so.6")

needs_libc = pytest.mark.skipif(not LIBC.exists(), reason="this host's C library is elsewhere")


def debian_of_host() -> str:
    facts = host_arch().facts.debian
    return facts.arch if facts else ""


class Archive:
    """A signed archive in a folder, with packages for s390x and for this host."""

    def __init__(self, folder: Path, home: Path) -> None:
        """home: gpg's home directory."""
        self.folder = folder
        self._home = home
        self._stanzas: dict[str, list[str]] = {"s390x": [], debian_of_host(): []}

    def add(
        self, name: str, version: str, arch: str, files: dict[str, str | Path], depends: str = ""
    ) -> None:
        """Add a package. files: their texts, or files that are copied, or `-> TARGET` for a symlink."""
        tree = self._home / f"{name}_{version}"
        for file, content in files.items():
            path = tree / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copy(content, path)
            elif content.startswith("-> "):
                path.symlink_to(content.removeprefix("-> "))
            else:
                path.write_text(content)
        (tree / "DEBIAN").mkdir(parents=True)
        fields = (
            f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: me <me@example.org>\n"
        )
        fields += f"Depends: {depends}\n" if depends else ""
        (tree / "DEBIAN/control").write_text(f"{fields}Description: made here\n")
        deb = self.folder / f"pool/{name}_{version}_{arch}.deb"
        deb.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-Znone", "--build", tree, deb], check=True, capture_output=True)
        data = deb.read_bytes()
        stanza = f"{fields}Filename: pool/{deb.name}\nSize: {len(data)}\n"
        stanza += f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: made here\n"
        for one in self._stanzas if arch == "all" else [arch]:
            self._stanzas[one].append(stanza)
        shutil.rmtree(tree)

    def add_kernel(self, version: str, *, release: str = "", link: str = "") -> None:
        """Add an image and its headers. release: what the headers say. link: a symlink among them."""
        name = f"{version}-s390x"
        files: dict[str, str | Path] = {
            f"boot/{file}-{name}": "x" for file in ("vmlinuz", "config", "System.map")
        }
        files[f"lib/modules/{name}/modules.order"] = ""
        self.add(f"linux-image-{name}", f"{version}-1", "s390x", files)
        top, common = f"usr/src/linux-headers-{name}", f"linux-headers-{version}-common"
        mine: dict[str, str | Path] = {
            f"{top}/Makefile": f"include /usr/src/{common}/Makefile\n",
            f"{top}/scripts": "-> /usr/lib/linux-kbuild-4.99/scripts",
            f"{top}/include/generated/utsrelease.h": f'#define UTS_RELEASE "{release or name}"\n',
        }
        if link:
            mine[f"{top}/link"] = f"-> {link}"
        needs = f"{common} (= {version}-1), linux-kbuild-4.99 (>= 4.99.2-1), linux-compiler-gcc-12-s390"
        self.add(f"linux-headers-{name}", f"{version}-1", "s390x", mine, needs)
        self.add(common, f"{version}-1", "all", {f"usr/src/{common}/Makefile": "modules:\n\t@echo $(CC)\n"})

    def add_compilers(self) -> None:
        """Add kbuild, a C library, and "compilers", all of which are this host's true(1)."""
        host, bin_ = debian_of_host(), f"usr/bin/{TRIPLE}-"
        self.add(
            "linux-kbuild-4.99", "4.99.10-2", host, {"usr/lib/linux-kbuild-4.99/scripts/fixdep": PROGRAM}
        )
        self.add("libc6-dev", "2", host, {f"lib/{TRIPLE}/libc.so.6": LIBC, LOADER[1:]: Path(LOADER)})
        self.add("gcc-12", "12", host, {f"{bin_}gcc-12": PROGRAM, f"{bin_}ld": PROGRAM})
        self.add("gcc-13-s390x-linux-gnu", "13", host, {"usr/bin/s390x-linux-gnu-gcc-13": PROGRAM})

    def publish(self) -> None:
        """Write and sign the index."""
        dist = self.folder / "dists/test"
        lines = []
        for arch, stanzas in self._stanzas.items():
            index = dist / f"main/binary-{arch}/Packages"
            index.parent.mkdir(parents=True, exist_ok=True)
            index.write_text("\n".join(stanzas))
            data = index.read_bytes()
            lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-{arch}/Packages\n")
        (dist / "Release").write_text(
            f"Origin: Test\nSuite: test\nCodename: test\nDate: {formatdate(usegmt=True)}\n"
            f"Architectures: {' '.join(self._stanzas)}\nComponents: main\nSHA256:\n{''.join(lines)}"
        )
        self._gpg("--passphrase", "", "--quick-generate-key", "Test <t@example.org>", "default", "default")
        (self._home / "keyring.gpg").write_bytes(self._gpg("--export"))
        self._gpg("--clearsign", "--output", str(dist / "InRelease"), str(dist / "Release"))

    def configure(self) -> None:
        """Make it the user's only suite for the series 4.99."""
        arches = sorted({"s390x", debian_of_host()})
        (paths.config_dir() / "debian.toml").write_text(
            f'[suite.test]\nkeyring = "{self._home / "keyring.gpg"}"\nmirrors = ["file:{self.folder}"]\n'
            f'arches = {arches}\ncomponents = ["main"]\nseries = ["4.99"]\n'
        )

    def _gpg(self, *argv: str) -> bytes:
        options = ["--homedir", str(self._home), "--batch", "--yes", "--pinentry-mode", "loopback"]
        return subprocess.run(["gpg", *options, *argv], check=True, capture_output=True).stdout


@pytest.fixture
def archive(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Archive]:
    """An empty archive with compilers."""
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))
    made = Archive(tmp_path / "archive", home)
    made.folder.mkdir()
    made.add_compilers()
    yield made
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def obtain(
    text: str, *, needs_tree: bool = True, offline: bool = False, refresh: bool = False
) -> tuple[Kernel, list[str]]:
    """The kernel, and the progress messages."""
    told: list[str] = []
    order = Order(arch=load_arch("s390x"), tell=told.append, needs_tree=needs_tree)

    async def play() -> Kernel:
        return await source.obtain(text, order, offline=offline, refresh=refresh)

    return anyio.run(play), told


def without_headers(archive: Archive, version: str) -> None:
    (archive.folder / f"pool/linux-headers-{version}-s390x_{version}-1_s390x.deb").unlink()


@needs_archive
@needs_libc
def test_headers_and_compilers_become_a_build_tree(
    archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.add_kernel("4.99.10")
    archive.publish()
    archive.configure()
    # The kernel is in the cache already, as an earlier version may have stored it.
    kernel, _ = obtain("debian:4.99", needs_tree=False)
    assert kernel.build_tree is None
    assert run_command(["kernel", "show", kernel.record.key]) == 0
    assert "`quizmatrix kernel build debian:4.99 -a s390x` fetches" in capsys.readouterr().out
    with pytest.raises(UnpreparedError, match="--offline") as caught:
        obtain("debian:4.99", offline=True)
    assert "without --offline" in caught.value.next_step
    again, told = obtain("debian:4.99")
    assert again.record.key == kernel.record.key
    assert "Debian's test has no gcc-12-s390x-linux-gnu; taking gcc-13-s390x-linux-gnu" in told
    tree = again.build_tree
    assert tree is not None
    assert tree.variables == {
        "ARCH": "s390",
        "CROSS_COMPILE": "s390x-linux-gnu-",
        "CC": "s390x-linux-gnu-gcc-13",
        "HOSTCC": f"{TRIPLE}-gcc-12",
    }
    assert tree.source.name == "linux-headers-4.99.10-common"
    # The Makefile's absolute path is the one in the cache, and all programs run with the unpacked C library.
    argv = ["make", "-C", str(tree.folder), *tree.make, "modules"]
    done = subprocess.run(argv, env={**os.environ, **tree.environment}, capture_output=True, check=True)
    assert b"s390x-linux-gnu-gcc-13" in done.stdout
    home = TOOLCHAINS.path(next(key for key in TOOLCHAINS.stored() if not key.startswith("test-x-s390x")))
    for program in ("s390x-linux-gnu-gcc-13", f"{TRIPLE}-gcc-12", "gcc", "cc", "ld"):
        path = tree.require_program(program, "none")
        assert Path(path).is_relative_to(TOOLCHAINS.root)
        subprocess.run([path], check=True)
    fixdep = (tree.folder / "scripts/fixdep").resolve()
    assert fixdep.is_relative_to(TREES.path(kernel.record.key).resolve())
    assert (elf.interpreter_of(fixdep) or "").startswith(f"{TOOLCHAINS.root}/")
    subprocess.run([fixdep], check=True)
    assert home.is_dir()
    assert run_command(["kernel", "show", kernel.record.key]) == 0
    said = capsys.readouterr().out
    assert f"make -C {tree.folder} ARCH=s390 CROSS_COMPILE=s390x-linux-gnu- " in said
    # What is damaged, or was made for another place, is made again.
    shutil.rmtree(tree.tools[0])
    assert again.build_tree is None
    again, _ = obtain("debian:4.99")
    assert again.build_tree is not None
    assert run_command(["kernel", "remove", kernel.record.key]) == 0
    assert TREES.stored() == []
    assert len(TOOLCHAINS.stored()) == 2
    assert run_command(["kernel", "remove", "--unused"]) == 0
    assert TOOLCHAINS.stored() == []


@needs_archive
@needs_libc
def test_headers_that_the_archive_no_longer_has(archive: Archive) -> None:
    archive.add_kernel("4.99.2")
    archive.add_kernel("4.99.10")
    archive.publish()
    archive.configure()
    kernel, _ = obtain("debian:4.99", needs_tree=False)
    assert kernel.record.release == "4.99.10-s390x"
    without_headers(archive, "4.99.10")
    kernel, told = obtain("debian:4.99")
    assert kernel.record.release == "4.99.2-s390x"
    assert kernel.build_tree is not None
    assert any("linux-headers-4.99.10-s390x" in line and "taking the next kernel" in line for line in told)
    # From now on this is the kernel, also to `run`.
    assert obtain("debian:4.99", needs_tree=False)[0].record.release == "4.99.2-s390x"
    # On a refresh an older kernel does not take the newer one's place, and its own tree is there.
    assert obtain("debian:4.99", refresh=True)[0].record.release == "4.99.2-s390x"
    # One version is not replaced by another.
    obtain("debian:4.99.10", needs_tree=False)
    with pytest.raises(NotInArchiveError, match=re.escape("linux-headers-4.99.10-s390x")):
        obtain("debian:4.99.10")


@needs_archive
@needs_libc
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"release": "4.99.9-s390x"}, "they are of 4.99.9-s390x"),
        ({"link": "../../../../etc/passwd"}, "to ../../../../etc/passwd"),
    ],
)
def test_headers_that_are_not_what_they_should_be(archive: Archive, wrong: dict[str, str], said: str) -> None:
    archive.add_kernel("4.99.10", **wrong)
    archive.publish()
    archive.configure()
    kernel, _ = obtain("debian:4.99", needs_tree=False)
    with pytest.raises(DamagedError) as caught:
        obtain("debian:4.99")
    assert said in caught.value.cause
    assert TREES.stored() == []
    # The kernel itself is as good as before.
    assert obtain("debian:4.99", needs_tree=False, offline=True)[0].record.key == kernel.record.key


@needs_libc
def test_a_program_runs_with_the_libraries_of_its_own_release(tmp_path: Path) -> None:
    program, loader, libraries = tmp_path / "true", tmp_path / "a loader", tmp_path / "libraries"
    libraries.mkdir()
    for file, place in ((PROGRAM, program), (Path(LOADER), loader), (LIBC, libraries / "libc.so.6")):
        shutil.copy(file, place)
    runtime = Runtime(loader=str(loader), libraries=[str(libraries)])
    anyio.run(foreign.use_runtime, [program], runtime)
    assert elf.interpreter_of(program) == str(loader)
    done = subprocess.run([str(loader), "--list", program], capture_output=True, check=True)
    assert f"{libraries}/libc.so.6" in done.stdout.decode()
    subprocess.run([program], check=True)
    (libraries / "libc.so.6").unlink()
    (libraries / "libc.so.6").write_bytes(b"broken")
    assert subprocess.run([program], check=False, capture_output=True).returncode != 0


def test_links_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/a").symlink_to("/usr/lib/b")
    (root / "usr/lib/b").write_text("b")
    foreign.keep_links_inside(root)
    foreign.merge_usr(root)
    assert (root / "lib/a").read_text() == "b"
    (root / "usr/lib/out").symlink_to("../../../else")
    with pytest.raises(DamagedError, match="usr/lib/out leads out"):
        foreign.keep_links_inside(root)


def test_a_makefile_is_pointed_to_the_cache(tmp_path: Path) -> None:
    makefile = tmp_path / "Makefile"
    makefile.write_text("include /usr/src/common/Makefile\nX = a/usr/src/b $(D)/usr/src/c\n")
    headers.point_makefile(makefile, Path("/cache/usr/src"))
    assert makefile.read_text().splitlines()[0] == "include /cache/usr/src/common/Makefile"
    assert "a/usr/src/b" in makefile.read_text()


def test_a_record_that_cannot_be_read_is_no_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path))
    place = TREES.path("key")
    place.mkdir(parents=True)
    assert buildtree.find("key") is None
    record = buildtree.TreeRecord(folder=str(place), source=str(place), make=["CC=gcc -m64"])
    buildtree.write_record(place, record)
    tree = buildtree.find("key")
    assert tree is not None
    assert (tree.variables, tree.environment) == ({"CC": "gcc -m64"}, {})
    buildtree.write_record(place, msgspec.structs.replace(record, tools=[str(tmp_path / "gone")]))
    assert buildtree.find("key") is None
    assert [one.make for one in buildtree.records()] == [record.make]


def test_a_compiler_that_is_asked_what_it_is(tmp_path: Path) -> None:
    """Configure scripts run `gcc -v`. With an option for the linker it would link, and fail."""
    place = tmp_path / "a place"
    (place / "usr/bin").mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "usr/bin/gcc-12").symlink_to("/usr/bin/gcc")
    runtime = foreign.Runtime(loader="/a loader", libraries=["/some libraries"])
    toolchain._write_driver(place / "bin/gcc-12", place, "gcc", runtime)
    done = subprocess.run([place / "bin/gcc-12", "-v"], capture_output=True, text=True, check=True)
    assert f"Reading specs from {place}/bin/link.specs" in done.stderr
