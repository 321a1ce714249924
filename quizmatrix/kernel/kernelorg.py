"""The kernel source `kernel.org`: releases, checked by signed checksums, and snapshots, which have none."""

from __future__ import annotations

import base64
import re
import tempfile
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core import download, paths, process, tomlfile
from quizmatrix.core.errors import NotFetchedError, UnpreparedError, host_error
from quizmatrix.core.process import Tell
from quizmatrix.core.version import MASTER, KernelVersion
from quizmatrix.kernel import build, tarball
from quizmatrix.kernel.debianversions import NEWEST, fits
from quizmatrix.kernel.kernelsource import AvailableKernel, KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import SOURCE_TREES, KernelTree, unpacked
from quizmatrix.model.arch import Arch

_SITE_FILE = Path(__file__).with_name("kernel.org.toml")
_KEY_FILE = Path(__file__).with_name("kernel.org.asc")

# The newest known major version; `newest` checks whether there is a newer one.
_KNOWN_MAJOR = 7

# The oldest series that was ever built here; and the seconds that kernel.org has to say what it has.
_OLDEST = "5.10"
_PATIENCE = 15.0

# The placeholder for the wanted version in an address.
_VERSION = "{version}"

_RELEASE = re.compile(r"^([0-9a-f]{64})  linux-(\d+\.[\d.]*\d)\.tar\.xz$", re.MULTILINE)


def _own_file() -> Path:
    return paths.config_dir() / "kernel.org.toml"


def _other_address(key: str = "base") -> str:
    return f"Another address is named in {_own_file()}: {key} = ADDRESS."


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses of kernel.org (quizmatrix/kernel/kernel.org.toml describes the keys); None: the default."""

    base: str | None = None
    keyring: str | None = None
    candidate: str | None = None
    next: str | None = None
    master: str | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A released kernel, and the SHA-256 checksum of its tarball."""

    version: KernelVersion
    sha256: str


def check(wanted: str) -> str:
    """Check the part of a specification after `kernel.org:`. Raises ValueError where it is no version."""
    if wanted in (NEWEST, MASTER):
        return wanted
    version = KernelVersion(wanted)
    if not version.is_upstream and not version.is_next:
        raise ValueError(f"no version that kernel.org can have: {wanted!r}")
    return version.text


async def released(one: str, other: str, _arch: Arch, tell: Tell) -> dict[KernelVersion, str]:
    """All releases of the major versions of two kernels and of those between, by their versions."""
    found = await _releases_between(one, other, tell)
    return {version: version.text for version in found}


async def _releases_between(one: str, other: str, tell: Tell) -> list[KernelVersion]:
    """All releases of the major versions of two kernels and of those between."""
    site = load_site()
    tell("asking kernel.org")
    majors = [int(KernelVersion(text).series.partition(".")[0]) for text in (one, other) if text != NEWEST]
    if NEWEST in (one, other):
        majors.append((await _newest_major(site))[0])
    return [
        release.version
        for major in range(min(majors), max(majors) + 1)
        for release in await _releases_in(f"{site.base}/v{major}.x", site)
    ]


async def available(series: str, _arches: list[Arch], tell: Tell) -> list[AvailableKernel]:
    """All releases of a series; if it is empty, the newest release of each series.

    Raises NotFetchedError where kernel.org does not answer soon.
    """
    there: list[KernelVersion] = []
    with anyio.move_on_after(_PATIENCE) as limit:
        there = await _releases_between(series or _OLDEST, series or NEWEST, tell)
    if limit.cancelled_caught:
        raise NotFetchedError(f"kernel.org did not answer within {_PATIENCE:.0f} seconds")
    newest = {version.series: version for version in sorted(there)}
    # The first release of a series has the same name as the series.
    wanted = [
        version
        for version in sorted(there, reverse=True)
        if version == newest[version.series] or (version.series == series and not version.is_series)
        if version.series == series or (not series and version >= KernelVersion(_OLDEST))
    ]
    return [
        AvailableKernel(
            kernel=f"kernel.org:{version.series if version == newest[version.series] else version.text}",
            version=version.text,
            origin="kernel.org",
            is_built=True,
        )
        for version in wanted
    ]


async def _newest_major(site: Site) -> tuple[int, list[Release]]:
    """The newest major version, and its releases."""
    major = _KNOWN_MAJOR
    releases = await _releases_in(f"{site.base}/v{major}.x", site)
    while above := await _releases_in(f"{site.base}/v{major + 1}.x", site):
        major, releases = major + 1, above
    return major, releases


def load_site() -> Site:
    """The addresses that ship, with those of the user's file. Raises DataError where a file is wrong."""
    return tomlfile.load_over(_SITE_FILE, _own_file(), Site)


async def fetch(wanted: str, order: Order) -> str:
    """Build the kernel `wanted`, unless the cache has it; returns its key.

    wanted: a series (its newest release), an exact version, a candidate, `next-DATE`, `master` or `newest`.
    Raises UnpreparedError where kernel.org has no such kernel or does not deliver it, or where the checksum
    is not the signed one.
    """
    site = load_site()
    unsigned = _unsigned_address(wanted, site)
    async with order.fetching:
        tree = await (_snapshot(unsigned, order) if unsigned else _release(wanted, site, order.tell))
    return await build.build(tree, order)


def _unsigned_address(wanted: str, site: Site) -> str | None:
    """The address of an unreleased kernel (candidate, linux-next, master); None for a released one."""
    if wanted == MASTER:
        return site.master
    if wanted == NEWEST:
        return None
    version = KernelVersion(wanted)
    if version.is_next:
        return (site.next or "").replace(_VERSION, wanted)
    return (site.candidate or "").replace(_VERSION, wanted) if version.is_candidate else None


async def _snapshot(url: str, order: Order) -> KernelTree:
    order.tell(f"fetching {url}, which kernel.org does not sign")
    try:
        with paths.scratch(SOURCE_TREES.root, "snapshot") as scratch:
            archive = await download.fetch_file(
                url, Path(scratch), order.tell, otherwise=_other_address("candidate, next or master")
            )
            return await tarball.unpack(archive, order, origin=url)
    except OSError as error:
        raise host_error(f"store {url}", error) from error


async def _release(wanted: str, site: Site, tell: Tell) -> KernelTree:
    release = await _resolve(wanted, site, tell)
    name = f"linux-{release.version.text}"
    url = f"{_folder_of(release.version, site)}/{name}.tar.xz"

    async def fetch_archive(_scratch: Path) -> Path:
        tell(f"fetching {url}")
        # Not to the scratch folder, which is removed: the next try can resume an interrupted download.
        return await download.fetch_file(
            url, SOURCE_TREES.root, tell, sha256=release.sha256, otherwise=_other_address()
        )

    path = await unpacked(f"kernel.org-{name}-{release.sha256[:12]}", fetch_archive, tell)
    (SOURCE_TREES.root / f"{name}.tar.xz").unlink(missing_ok=True)
    return KernelTree(path=path, version=release.version, key=release.sha256, origin=f"kernel.org {name}")


def _folder_of(version: KernelVersion, site: Site) -> str:
    return f"{site.base}/v{version.series.partition('.')[0]}.x"


async def _resolve(wanted: str, site: Site, tell: Tell) -> Release:
    """The newest release that fits `wanted`."""
    tell("asking kernel.org")
    if wanted == NEWEST:
        _major, releases = await _newest_major(site)
    else:
        folder = _folder_of(KernelVersion(wanted), site)
        releases = await _releases_in(folder, site)
        if not releases:
            raise UnpreparedError(
                f"kernel.org has no release {wanted}",
                cause=f"there is nothing at {folder}",
                next_step=f"Is that a version? {_other_address()}",
            )
    fitting = [release for release in releases if fits(release.version, wanted)]
    if not fitting:
        raise UnpreparedError(
            f"kernel.org has no release {wanted}",
            next_step="A series (6.12), a release (6.12.57), 6.13-rc2, next-20261120, master or newest.",
        )
    return max(fitting, key=lambda release: release.version)


async def _releases_in(folder: str, site: Site) -> list[Release]:
    """All releases of a major version, from the signed list of checksums; empty where there is none."""
    url = f"{folder}/sha256sums.asc"
    signed = await download.fetch_text(url, otherwise=_other_address())
    text = "" if signed is None else await _verified(signed, url, site)
    return [
        Release(version=KernelVersion(version), sha256=sha256) for sha256, version in _RELEASE.findall(text)
    ]


async def _verified(signed: str, url: str, site: Site) -> str:
    """The part of a clear-signed text that its signature covers."""
    process.require_program("gpgv", "gpgv")
    try:
        key = _binary_key(Path(site.keyring) if site.keyring else _KEY_FILE)
    except (OSError, ValueError) as error:
        raise UnpreparedError(f"cannot read the key in {site.keyring}", cause=str(error)) from error
    try:
        return await _check_signature(signed, key, url)
    except OSError as error:
        raise host_error("check a signature", error) from error


async def _check_signature(signed: str, key: bytes, url: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key.gpg").write_bytes(key)
        (folder / "signed.asc").write_text(signed, encoding="utf-8")
        argv = ["gpgv", f"--keyring={folder}/key.gpg", f"--output={folder}/text", str(folder / "signed.asc")]
        done = await process.run(argv)
        if done.status != 0:
            raise NotFetchedError(
                f"the signature of {url} is not good",
                cause=done.last_words,
                next_step=f"A mirror that signs with a key of its own needs `keyring` in {_own_file()}.",
            )
        return (folder / "text").read_text(encoding="utf-8")


def _binary_key(path: Path) -> bytes:
    """An armoured key in binary form, for gpgv (RFC 9580, 6.2: headers, empty line, base64, checksum)."""
    _, _, body = path.read_text(encoding="ascii").partition("\n\n")
    lines = body.split("-----")[0].splitlines()
    return base64.b64decode("".join(line for line in lines if not line.startswith("=")))


SOURCE = KernelSource(check=check, recipe=build.recipe, fetch=fetch, released=released, available=available)
