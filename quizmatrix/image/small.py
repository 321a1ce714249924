"""Makes the small base image: busybox from Debian's package of the architecture.

On a host without apt, dpkg-deb or Debian's keyring it is the host's own static busybox, for the host's own
architecture only. The image is inside the initramfs, so a guest has its root as soon as it has a kernel.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.core import cpio, paths
from quizmatrix.core.checksum import Checksum, checksum_of
from quizmatrix.core.errors import DamagedError, HostError, UnpreparedError, host_error
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store, key_of
from quizmatrix.image.artifact import IMAGES, Image
from quizmatrix.model.arch import Arch

_RECIPE = "3"

_SMALL = Store(what="base image", folder=IMAGES.folder, record="{}/key")
_SHA256_DIGITS = 64


_FOLDERS = {
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "usr/lib": 0o755,
    "usr/share": 0o755,
    "etc": 0o755,
    "dev": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "run": 0o755,
    "shared": 0o755,
    "root": 0o700,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "srv": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
    "var/log": 0o755,
    "var/lib": 0o755,
    "var/cache": 0o755,
}
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "var/run": "/run",
    "etc/mtab": "/proc/self/mounts",
}
# Programs that Debian has in /usr/sbin. init1 puts all of busybox's programs into /usr/bin; but the kernel
# (modprobe, poweroff) and many scripts call these with their path.
_SYSTEM_PROGRAMS = [
    "acpid",
    "adjtimex",
    "arp",
    "arping",
    "blockdev",
    "brctl",
    "chroot",
    "crond",
    "depmod",
    "devmem",
    "fdisk",
    "findfs",
    "freeramdisk",
    "fsfreeze",
    "fstrim",
    "getty",
    "halt",
    "httpd",
    "hwclock",
    "i2cdetect",
    "i2cdump",
    "i2cget",
    "i2cset",
    "i2ctransfer",
    "ifconfig",
    "ifdown",
    "ifup",
    "insmod",
    "ip",
    "ipneigh",
    "klogd",
    "loadfont",
    "loadkmap",
    "logread",
    "losetup",
    "lsmod",
    "mdev",
    "mke2fs",
    "mkdosfs",
    "mkswap",
    "modinfo",
    "modprobe",
    "nameif",
    "nologin",
    "partprobe",
    "pivot_root",
    "poweroff",
    "rdate",
    "reboot",
    "rmmod",
    "route",
    "run-init",
    "start-stop-daemon",
    "sulogin",
    "swapoff",
    "swapon",
    "switch_root",
    "sysctl",
    "syslogd",
    "telnetd",
    "tunctl",
    "ubirename",
    "udhcpc",
    "udhcpd",
    "uevent",
    "vconfig",
    "watchdog",
]
_LINKS |= {f"usr/sbin/{name}": f"../bin/{name}" for name in _SYSTEM_PROGRAMS}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ndisk:x:6:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/profile": "export PS1='\\u@\\h:\\w\\$ '\n",
    "etc/os-release": 'ID=quizmatrix\nPRETTY_NAME="quizmatrix small image"\n',
}


async def obtain(arch: Arch, *, offline: bool, refresh: bool, tell: Tell) -> Image:
    """The small image of an architecture, made where the cache lacks it.

    Raises UnpreparedError where the packages cannot be fetched, HostError where this host lacks the tools.
    """
    key = _key(arch)
    if not refresh:
        image = _load(key)
        if image is not None:
            return image
    from quizmatrix.debian import host
    from quizmatrix.image import own

    obstacle = host.obstacle()
    found = own.programs(arch) if obstacle is not None else None
    if refresh and obstacle is not None and (image := _load(key)) is not None:
        return image
    if offline and found is None:
        raise UnpreparedError(
            f"the small base image for {arch.name} is not in the cache",
            cause="--offline forbids fetching it",
            next_step=f"Once, with a network: quizmatrix prepare -a {arch.name}",
        )
    async with _SMALL.locked(key, lambda: tell("waiting for another quizmatrix that fetches the base image")):
        image = None if refresh else _load(key)
        if image is not None:
            return image
        if found is not None:
            tell(f"{obstacle}: the base image is made of this host's own busybox")
        elif obstacle is not None:
            raise _cannot_be_made(arch, obstacle)
        from quizmatrix.image import programs

        try:
            return _make(key, found or await programs.fetch(arch, _SMALL.root, tell))
        except OSError as error:
            raise host_error("store the base image", error) from error


def _key(arch: Arch) -> str:
    made = [_RECIPE, arch.name, repr(_FOLDERS), repr(_LINKS), repr(_FILES)]
    return f"small-{arch.name}-{key_of(made, 12)}"


def _load(key: str) -> Image | None:
    """The stored image; None where there is none, or it is damaged."""
    archive = _archive(key)
    try:
        stored = _SMALL.record_of(key).read_bytes()
        if len(stored) == _SHA256_DIGITS:
            # Before 2026-12 this alone was stored. No file has such an mtime, so the content is read.
            checksum = Checksum(size=archive.stat().st_size, mtime_ns=-1, sha256=stored.decode())
        else:
            checksum = msgspec.json.decode(stored, type=Checksum)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None
    return Image(key=checksum.sha256, archive=archive) if checksum.matches(archive) else None


def _archive(key: str) -> Path:
    return _SMALL.path(key) / "base.cpio"


def _cannot_be_made(arch: Arch, obstacle: HostError) -> HostError:
    instead = " Or install a static busybox on this host." if arch.is_native else ""
    return HostError(
        f"the small base image for {arch.name} cannot be made: {obstacle.fact}",
        cause="its busybox comes from Debian, whatever the kernel",
        next_step=f"{obstacle.next_step}{instead}",
    )


def is_stored(arch: Arch) -> bool:
    """Whether the cache has the image of an architecture."""
    return _load(_key(arch)) is not None


def _make(key: str, programs: dict[str, bytes]) -> Image:
    parts = [cpio.directory("guest"), cpio.directory("layers"), cpio.directory("layers/base")]
    parts += [cpio.file(f"guest/{name}", data, 0o755) for name, data in programs.items()]
    base = "layers/base/"
    parts += [cpio.directory(base + name, mode) for name, mode in _FOLDERS.items()]
    parts += [cpio.symlink(base + name, target) for name, target in _LINKS.items()]
    parts += [cpio.file(base + name, text.encode()) for name, text in _FILES.items()]
    archive = b"".join(parts)
    path = _archive(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The archive is written first: after a crash in between, the old checksum does not fit.
    paths.write_atomic(path, archive)
    paths.write_atomic(_SMALL.record_of(key), msgspec.json.encode(checksum_of(path)))
    image = _load(key)
    if image is None:
        raise DamagedError(f"the base image in {path} is not what was just written")
    return image
