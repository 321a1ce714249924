"""Fetches Debian packages with apt in a private root, one per suite and architecture.

apt checks the signatures. The host's own apt is neither read nor changed, and root is not needed.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import HostError, NotFetchedError, NotInArchiveError, UnpreparedError, host_error
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.model.archive import Archive, load_archive

T = TypeVar("T")
R = TypeVar("R")

_WITHOUT_RECOMMENDS = ("-o", "APT::Install-Recommends=false")

# The private roots of apt, each with a record of where its index was fetched from; and the .deb files.
_ROOTS = Store(what="package", folder="apt", reference="{}/updated", lock="apt-{}")
_PACKAGES = Store(what="package", folder="packages")

# Seconds for which a fetched index counts as up to date.
INDEX_FRESH = 600.0

# apt's messages about a file that a mirror does not have, over HTTP and in a local folder.
_NO_SUCH_FILE = re.compile(r" 404  |File not found - ")


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package of a suite. size: bytes of the .deb. depends: the raw Depends field."""

    name: str
    version: str
    sha256: str
    size: int
    depends: str


def no_keyring(path: str) -> HostError:
    """The error for a missing keyring."""
    return HostError(
        f"the Debian archive's keyring is not at {path}",
        next_step="On Debian: sudo apt-get install debian-archive-keyring; elsewhere set "
        f"`keyring` in {paths.config_dir() / 'debian.toml'}.",
    )


class AptRoot:
    """A private apt for one suite and one Debian architecture, or for the suite's sources."""

    def __init__(self, archive: Archive, suite: str, arch: str, *, sources: bool = False) -> None:
        """arch: Debian's name of it. Nothing is written before the first update."""
        self._type = "deb-src" if sources else "deb"
        self.suite = suite
        self._facts = archive.suite[suite]
        self._keyring = self._facts.keyring or archive.keyring or ""
        self.arch = arch
        self._name = f"{suite}-{'sources' if sources else arch}"
        # apt.conf has this path: the same one, if a link leads here.
        self._root = _ROOTS.path(self._name).resolve()

    async def update(self) -> None:
        """Fetch and verify the suite's index from the first mirror that has it.

        Raises NotFetchedError with apt's message if no mirror does, HostError if this host lacks something.
        Protected by a lock of ours: apt fails if another apt holds its lock.
        """
        try:
            async with _ROOTS.locked(self._name):
                await self._update()
        except OSError as error:
            raise host_error("write the package cache", error) from error

    async def _update(self) -> None:
        asked = f"{self._facts} {self._keyring}".encode()
        with contextlib.suppress(OSError):
            age = time.time() - _ROOTS.reference_of(self._name).stat().st_mtime
            if 0 <= age < INDEX_FRESH and _ROOTS.read_reference(self._name) == asked:
                return
        if not Path(self._keyring).is_file():
            raise no_keyring(self._keyring)
        said = ""
        for mirror in self._facts.mirrors:
            self._configure(mirror)
            done = await self._apt("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
            if done.status == 0:
                _ROOTS.write_reference(self._name, asked)
                return
            said = said or _first_error(done)
        raise NotFetchedError(
            f"the index of Debian's {self.suite} ({self.arch}) could not be fetched",
            cause=said,
            next_step="Check the network, or name another mirror for "
            f"[suite.{self.suite}] in {paths.config_dir() / 'debian.toml'}.",
        )

    async def names(self, prefix: str) -> list[str]:
        """The names of the suite's packages with this prefix."""
        done = await self._apt("apt-cache", "pkgnames", prefix)
        return sorted(done.output.decode().split())

    async def show(self, *names: str) -> list[Package]:
        """The newest version of each named package that the suite has."""
        done = await self._apt("apt-cache", "show", "--no-all-versions", *names)
        packages = []
        for stanza in done.output.decode().split("\n\n"):
            fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", stanza, re.MULTILINE))
            if "SHA256" in fields:
                packages.append(
                    Package(
                        name=fields["Package"],
                        version=fields["Version"],
                        sha256=fields["SHA256"],
                        size=int(fields["Size"]),
                        depends=fields.get("Depends", ""),
                    )
                )
        return packages

    async def download(self, packages: list[Package], into: Path) -> list[Path]:
        """Fetch packages into a folder; apt verifies each against the signed index.

        Raises NotInArchiveError if the mirror lacks one. Raises NotFetchedError if one cannot be fetched for
        another reason, is incomplete or fails the verification.
        """
        wanted = [f"{package.name}={package.version}" for package in packages]
        done = await self._apt("apt-get", "-q", "download", *wanted, cwd=into)
        found = sorted(into.glob("*.deb"))
        if done.status != 0 or len(found) != len(packages):
            raise self._not_fetched(", ".join(wanted), done)
        return found

    async def resolve(self, names: list[str]) -> list[Package]:
        """All packages that installing `names` (names or apt-patterns(7)) on an empty system needs.

        Raises UnpreparedError if one is not available.
        """
        done = await self._apt("apt-get", "-s", "-q", *_WITHOUT_RECOMMENDS, "install", *names)
        if done.status != 0:
            raise UnpreparedError(
                f"Debian's {self.suite} ({self.arch}) cannot install these packages",
                cause=_first_error(done),
                next_step="Names of packages: https://packages.debian.org",
            )
        found = re.findall(r"^Inst (\S+) ", done.output.decode(), re.MULTILINE)
        shown = {package.name: package for package in await self.show(*found)}
        return [shown[name] for name in found]

    async def fetch(self, packages: list[Package]) -> dict[str, Path]:
        """The files of packages, by name; files that the cache has already are not fetched again.

        Raises NotFetchedError if one cannot be fetched.
        """
        async with _PACKAGES.locked("packages"):
            _PACKAGES.path("partial").mkdir(parents=True, exist_ok=True)
            wanted = [f"{package.name}={package.version}" for package in packages]
            into = ["-o", f"Dir::Cache::archives={_PACKAGES.root}"]
            done = await self._apt(
                "apt-get", "-q", "-y", *_WITHOUT_RECOMMENDS, "--download-only", *into, "install", *wanted
            )
        found = {
            package.name: path
            for package in packages
            for arch in (self.arch, "all")
            if (path := _PACKAGES.path(_file_name(package, arch))).is_file()
        }
        if done.status != 0 or len(found) != len(packages):
            raise self._not_fetched("the packages", done)
        return found

    @property
    def suite_name(self) -> str:
        """The suite's name on its mirrors."""
        return self._facts.name or self.suite

    @property
    def source_line(self) -> str:
        """The sources.list(5) line of the mirror that the index came from."""
        return (self._root / "etc/sources.list").read_text().strip()

    @property
    def valid_until_options(self) -> list[str]:
        """apt.conf(5) lines for an archived suite, whose index is never renewed."""
        return [] if self._facts.check_valid_until else ['Acquire::Check-Valid-Until "false"']

    async def download_sources(self, names: list[str], into: Path, *, only: str = "") -> None:
        """Fetch the files of source packages into a folder, without unpacking them.

        only: `tar` for upstream's archive without Debian's part (apt-get(8), --tar-only).
        Raises NotFetchedError if one cannot be fetched, is incomplete or fails the verification.
        """
        part = [f"--{only}-only"] if only else []
        done = await self._apt("apt-get", "-q", "source", "--download-only", *part, *names, cwd=into)
        if done.status != 0:
            raise self._not_fetched(f"the sources of {', '.join(names)}", done)

    def _not_fetched(self, what: str, done: process.Completed) -> NotFetchedError:
        fact, cause = f"could not fetch {what} from Debian's {self.suite}", _first_error(done)
        if _NO_SUCH_FILE.search(cause):
            return NotInArchiveError(
                fact,
                cause=cause,
                next_step="The mirror lacks a file that its index names: run it again later, or name another "
                f"mirror for [suite.{self.suite}] in {paths.config_dir() / 'debian.toml'}.",
            )
        return NotFetchedError(
            fact,
            cause=cause,
            next_step="Check the network and the disk's free space, then run it again.",
        )

    async def _apt(self, *argv: str, cwd: Path | None = None) -> process.Completed:
        process.require_program(argv[0], "apt")
        # No limit: apt itself gives up if no more data comes, and large files may come slowly.
        env = {"APT_CONFIG": str(self._root / "apt.conf")}
        return await process.run(argv, cwd=cwd, env=env, limit=None)

    def _configure(self, mirror: str) -> None:
        """Write the configuration. apt reads APT_CONFIG before `Dir`, so none of the host's files is used."""
        root = self._root
        try:
            for folder in ("state/lists/partial", "cache/archives/partial", "etc/parts"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            (root / "state/status").touch()
            components = " ".join(self._facts.components)
            source = f"{self._type} [signed-by={self._keyring}] {mirror} {self.suite_name} {components}\n"
            paths.write_atomic(root / "etc/sources.list", source.encode())
            settings = {
                "Dir": f"{root}/",
                "Dir::State": "state",
                "Dir::State::status": f"{root}/state/status",
                "Dir::Cache": "cache",
                "Dir::Etc": "etc",
                "Dir::Etc::sourcelist": "sources.list",
                "Dir::Etc::sourceparts": "parts",
                "Dir::Etc::preferencesparts": "parts",
                "Dir::Etc::parts": "parts",
                "Dir::Etc::main": "none",
                "APT::Architecture": self.arch,
                "APT::Architectures": self.arch,
                # apt would drop to the user `_apt`, who cannot write below a home directory.
                "APT::Sandbox::User": "root",
                "Acquire::Languages": "none",
                "Acquire::Retries": "2",
                "Acquire::http::Timeout": "30",
                "Acquire::Check-Valid-Until": str(self._facts.check_valid_until).lower(),
            }
            text = "".join(f'{key} "{value}";\n' for key, value in settings.items())
            paths.write_atomic(root / "apt.conf", text.encode())
        except OSError as error:
            raise host_error("write the package cache", error) from error


async def ask_suites(
    suites: list[str],
    arch: str,
    tell: Tell,
    ask: Callable[[AptRoot], Awaitable[T | None]],
    *,
    is_first_enough: bool,
) -> list[T]:
    """The answers of `ask` for the suites, in order; suites with the answer None are left out.

    is_first_enough: stop after the first answer.
    Raises NotFetchedError if there is no answer and the index of a suite could not be fetched.
    """
    archive = load_archive()
    every: list[T] = []
    failure: NotFetchedError | None = None
    for suite in suites:
        root = AptRoot(archive, suite, arch)
        tell(f"asking Debian's {suite}")
        try:
            await root.update()
            found = await ask(root)
        except NotFetchedError as error:
            failure = failure or error
            tell(f"{error}; going on without it")
            continue
        if found is not None:
            every.append(found)
            if is_first_enough:
                break
    if failure is not None and not every:
        raise failure
    return every


async def first_available(
    found: list[T],
    package: Callable[[T], Package],
    take: Callable[[T], Awaitable[R]],
    tell: Tell,
    *,
    only_newest: bool,
) -> R:
    """The result of `take` for the first of `found` whose files the mirrors have.

    Mirrors sometimes lack a file that their index names.
    package: gives the package of an element of `found`, for messages.
    only_newest: try only the first.
    Raises NotInArchiveError if the mirrors lack the files of all.
    """
    failure: NotInArchiveError | None = None
    for one in found[:1] if only_newest else found:
        if failure is not None:
            tell(f"{failure}; taking {package(one).name} {package(one).version} instead")
        try:
            return await take(one)
        except NotInArchiveError as error:
            failure = failure or error
    raise failure or ValueError("nothing was found")


def _file_name(package: Package, arch: str) -> str:
    """apt's name for a fetched file: the colon of an epoch is escaped."""
    return f"{package.name}_{package.version.replace(':', '%3a')}_{arch}.deb"


def _first_error(done: process.Completed) -> str:
    """apt's first error message, without the list of hashes."""
    lines = (done.errors + b"\n" + done.output).decode(errors="replace").splitlines()
    wanted = [line for line in lines if re.match(r"\s*(E|Err)[:\d]", line)] or [done.last_words]
    first = wanted[0].strip()
    if first in lines and lines.index(first) + 1 < len(lines):
        follow = lines[lines.index(first) + 1]
        if follow.startswith(" "):
            first += " -" + follow.rstrip().removeprefix(" ")
    return first


async def unpack(archives: list[Path], into: Path) -> None:
    """Unpack .deb files into a folder without running their scripts."""
    process.require_program("dpkg-deb", "dpkg")
    for archive in archives:
        step = BuildStep(fact=f"could not unpack {archive.name}")
        await step.run(["dpkg-deb", "--extract", str(archive), str(into)])
