"""Makes Debian base images: one compressed read-only file system (squashfs) for any Debian architecture.

If this host can run the architecture's programs, mmdebstrap(1) installs the packages. If not, the packages
are fetched and unpacked here, and their own scripts configure them inside a guest of that architecture. That
needs no privilege and no set-up of the host.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process, squashfs, tomlfile
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.checksum import Checksum, checksum_of
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError, UsageError
from quizmatrix.core.process import Tell
from quizmatrix.core.store import key_of
from quizmatrix.debian import apt
from quizmatrix.debian.apt import Package
from quizmatrix.image.artifact import IMAGES, SUITES
from quizmatrix.image.dpkgprogress import DpkgProgress
from quizmatrix.model.arch import Arch
from quizmatrix.model.archive import load_archive

# Part of every key; has to be changed when an image is made differently from the same packages.
_RECIPE = "2"

# The programs that make images, and their Debian packages.
TOOLS = {"mksquashfs": "squashfs-tools", "mmdebstrap": "mmdebstrap"}

_SETS_FILE = Path(__file__).with_name("packages.toml")
BASE_SET = "base"

_DISK = "root.squashfs"

# Runs a shell script in a guest, with a folder as a layer over its root, and calls a function with each piece
# of its output; returns the artifacts' folder.
Guest = Callable[[Path, str, Callable[[bytes], Awaitable[None]]], Awaitable[Path]]


class DebianImage(msgspec.Struct, frozen=True, kw_only=True):
    """A stored image (its image.json).

    include: the packages and sets that the user asked for. expanded: the packages that these stood for then.
    installed: versions by package.
    """

    key: str
    arch: str
    suite: str
    include: list[str]
    expanded: list[str] = []
    installed: dict[str, str]
    checksum: Checksum = msgspec.field(name="seal")

    @property
    def folder(self) -> Path:
        """The image's folder."""
        return IMAGES.path(self.key)

    @property
    def disk(self) -> Path:
        """The file with the squashfs file system."""
        return self.folder / _DISK


def package_sets() -> dict[str, list[str]]:
    """The package sets that ship, by name."""
    return tomlfile.load(_SETS_FILE, dict[str, list[str]])


def expand(include: list[str]) -> list[str]:
    """The packages of the base set and of `include`, which has names of packages and of sets.

    Raises UsageError where a name cannot be a package's.
    """
    sets = package_sets()
    names: set[str] = set()
    for word in [BASE_SET, *include]:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", word):
            raise UsageError(
                f"`{word}` is no package", next_step=f"A package of Debian's, or a set: {', '.join(sets)}."
            )
        names.update(sets.get(word, [word]))
    return sorted(names)


def choose_suite(arch: Arch, asked: str | None) -> str:
    """The suite from which packages are taken. asked: the user's choice.

    Raises UsageError where there is no such suite, UnpreparedError where no suite has the architecture.
    """
    suites = load_archive().suite
    if asked is not None and asked not in suites:
        raise UsageError(f"unknown suite `{asked}`", next_step=f"Known: {', '.join(suites)}.")
    carrying = [name for name, suite in suites.items() if _debian_name(arch) in suite.arches]
    wanted = [asked] if asked else [*SUITES, *carrying]
    found = next((name for name in wanted if name in carrying), None)
    if found is None:
        raise UnpreparedError(
            f"Debian's {asked or 'archive'} does not carry {arch.name}",
            cause="" if arch.facts.debian else f"arch/{arch.name}.toml has no [debian]",
            next_step=f"Suites that do: {', '.join(carrying)}." if carrying else "Use the small image.",
        )
    return found


def _debian_name(arch: Arch) -> str:
    return arch.facts.debian.arch if arch.facts.debian else ""


def _name_of(arch: str, suite: str) -> str:
    return f"debian-{suite}-{arch}-{_RECIPE}"


def find(arch: Arch, suite: str) -> DebianImage | None:
    """The image built last for an architecture and suite. Raises DamagedError where it is damaged."""
    key = IMAGES.read_reference(_name_of(arch.name, suite))
    return load(key.decode()) if key is not None else None


def load(key: str) -> DebianImage | None:
    """The image with this key; None where it is not stored. Raises DamagedError where it is damaged."""
    image = IMAGES.read(key, DebianImage)
    if image is not None and not image.checksum.matches(image.disk):
        raise DamagedError(
            f"the base image {image.disk} is damaged", next_step=f"quizmatrix image remove {key}"
        )
    return image


def lacks(image: DebianImage, include: Sequence[str]) -> list[str]:
    """Those packages and sets of packages that the image does not have. A set may have grown since."""
    there = {*image.expanded, *image.installed}
    return [word for word in include if not there.issuperset(package_sets().get(word, [word]))]


def current_keys() -> set[str]:
    """The keys of the images that guests get."""
    return {key.decode() for name, key in IMAGES.references() if name.endswith(f"-{_RECIPE}")}


def require_tools() -> str:
    """The path of mksquashfs(1). Raises HostError where it is not installed."""
    return process.require_program("mksquashfs", TOOLS["mksquashfs"])


async def build(arch: Arch, suite: str, include: list[str], guest: Guest, tell: Tell) -> DebianImage:
    """Build the image with these packages, unless the cache has it, and make it the one that guests get.

    guest: runs the script that configures packages of another architecture. Raises HostError where a tool is
    missing, UnpreparedError where a package is missing or cannot be configured.
    """
    squash = require_tools()
    root = apt.AptRoot(load_archive(), suite, _debian_name(arch))
    tell(f"asking Debian's {suite}")
    await root.update()
    essential = await root.resolve(["?essential"])
    packages = await root.resolve(["?essential", *expand(include)])
    key = _key(arch, suite, packages)

    async def make(folder: Path) -> None:
        with paths.scratch(IMAGES.root, "build") as name:
            work = _ImageBuild(Path(name), arch, root, packages, tell)
            tar = await work.install({package.name for package in essential}, guest)
            await work.store(folder, key, tar, suite, include, squash)

    await IMAGES.get_or_make(
        key,
        make,
        action="make the base image",
        waiting=lambda: tell("waiting for another quizmatrix that makes it"),
        find=load,
    )
    IMAGES.write_reference(_name_of(arch.name, suite), key.encode())
    image = load(key)
    if image is None:
        raise DamagedError(f"the base image {key} vanished from the cache")
    return image


def _key(arch: Arch, suite: str, packages: list[Package]) -> str:
    made = [_RECIPE, *sorted(f"{package.name}={package.version}" for package in packages)]
    return f"debian-{suite}-{arch.name}-{key_of(made, 12)}"


class _ImageBuild:
    """One build of an image, in a temporary folder."""

    def __init__(
        self, folder: Path, arch: Arch, root: apt.AptRoot, packages: list[Package], tell: Tell
    ) -> None:
        self._folder = folder
        self._arch = arch
        self._root = root
        self._packages = packages
        self._tell = tell

    async def install(self, essential: set[str], guest: Guest) -> Path:
        """Install the packages; returns a tar archive of the root file system."""
        is_runnable = await self._is_runnable()
        if not is_runnable:
            # Checked before hundreds of packages are fetched.
            qemu = self._arch.facts.qemu
            process.require_program(qemu.binary, qemu.package)
        debs = await self._fetch()
        if is_runnable:
            try:
                return await self._install_here(debs)
            except (UnpreparedError, HostError) as error:
                # The host may lack something that mmdebstrap needs, such as user namespaces.
                self._tell(f"{error}; installing them in a guest instead")
        return await self._install_in(guest, debs, essential)

    async def _is_runnable(self) -> bool:
        """Whether this host runs the architecture's programs, natively or by binfmt_misc and qemu-user."""
        if process.find_program("mmdebstrap") is None:
            return False
        if self._arch.is_native:
            return True
        known = process.find_program("arch-test")
        return known is not None and (await process.run([known, self._root.arch])).status == 0

    async def _fetch(self) -> dict[str, Path]:
        """Fetch the packages; returns their files by package."""
        size = sum(package.size for package in self._packages)
        self._tell(f"fetching {len(self._packages)} packages ({size // 1_000_000} MB)")
        return await self._root.fetch(self._packages)

    async def _install_here(self, debs: dict[str, Path]) -> Path:
        pool = self._folder / "pool"
        pool.mkdir()
        for deb in debs.values():
            _link(deb, pool / deb.name)
        tar = self._folder / "root.tar"
        self._tell(f"installing {len(debs)} packages with mmdebstrap")
        await self._step("mmdebstrap could not install them").run(
            [
                "mmdebstrap",
                *("--quiet", "--variant=essential", f"--architectures={self._root.arch}", "--format=tar"),
                f"--include={','.join(package.name for package in self._packages)}",
                # mmdebstrap(1) shall use our package files, and neither fetch nor remove them.
                *("--skip=download/empty", "--skip=essential/unlink"),
                '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
                f"--setup-hook=sync-in {shlex.quote(str(pool))} /var/cache/apt/archives",
                '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname"',
                *(f"--aptopt={line}" for line in self._root.valid_until_options),
                *(self._root.suite_name, str(tar), self._root.source_line),
            ]
        )
        return tar

    async def _install_in(self, guest: Guest, debs: dict[str, Path], essential: set[str]) -> Path:
        """Unpack the essential packages here, and install all packages with dpkg in a guest."""
        layer = self._folder / "layer"
        setup = layer / "setup"
        for name in ("tar", "essential", "others"):
            (setup / name).mkdir(parents=True)
        self._tell("unpacking the essential packages")
        for package, deb in debs.items():
            is_essential = package in essential
            _link(deb, setup / ("essential" if is_essential else "others") / deb.name)
            if is_essential:
                await self._run(
                    "sh",
                    "-c",
                    'dpkg-deb --fsys-tarfile "$1" >"$2"',
                    "sh",
                    str(deb),
                    str(setup / "tar" / f"{package}.tar"),
                )
        self._tell(
            f"configuring {len(debs)} packages in a guest; that takes some minutes where it is emulated"
        )
        script = (paths.data_dir("guest") / "install-debian").read_text(encoding="utf-8")
        progress = DpkgProgress(len(debs), self._tell)
        return await guest(layer, script, progress.read) / "root.tar"

    async def store(
        self, folder: Path, key: str, tar: Path, suite: str, include: list[str], squash: str
    ) -> None:
        """Compress the root file system into the image's folder, and write its record."""
        self._tell("compressing it")
        disk = folder / _DISK
        await self._run(
            "sh",
            "-c",
            'tar=$1; shift; exec "$@" <"$tar"',
            "sh",
            str(tar),
            *(squash, "-", str(disk), "-tar", "-quiet", "-no-progress", "-comp", "lz4", "-Xhc"),
            *squashfs.limits(),
        )
        record = DebianImage(
            key=key,
            arch=self._arch.name,
            suite=suite,
            include=include,
            expanded=expand(include),
            installed={package.name: package.version for package in self._packages},
            checksum=checksum_of(disk),
        )
        (folder / IMAGES.record_of(key).name).write_bytes(msgspec.json.format(msgspec.json.encode(record)))

    async def _run(self, *argv: str) -> None:
        await self._step(f"`{process.printable(argv)}` failed").run(argv)

    def _step(self, fact: str) -> BuildStep:
        return BuildStep(fact=f"the Debian image for {self._arch.name} could not be made: {fact}")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
