"""Builds modules with Debian's own dkms(8), to compare `quizmatrix module build` with.

mmdebstrap(1) makes a private root with the kernel's headers and the compiler of the kernel's own suite, and
the builds run in it. This host's packages and its /usr/src are not touched; nothing of the root is kept.
"""

from __future__ import annotations

import subprocess
import tempfile
from enum import StrEnum
from pathlib import Path

import msgspec

from quizmatrix.core import paths
from quizmatrix.core.buildstep import first_error
from quizmatrix.core.store import key_of
from quizmatrix.debian.apt import AptRoot
from quizmatrix.model.archive import load_archive

# The suites of one Debian release, the main one first.
_SUITES = {
    "bookworm": ("bookworm", "bookworm-security", "bookworm-backports"),
    "trixie": ("trixie", "trixie-security"),
}

# What dkms and the packages' own makefiles use, beside the kernel's headers.
_INCLUDE = (
    *("dkms", "gcc", "make", "libc6-dev", "libelf-dev"),
    *("perl", "gawk", "bzip2", "pkg-config", "libxtables-dev", "dpkg-dev"),
)

# The user's cache, whichever is used later.
_KEPT = paths.cache_dir() / "tests/dkms"

# Seconds for one package. dahdi, the slowest, takes two minutes of two cores that do nothing else.
_LIMIT = 3600

# Runs in the root. The packages are not installed: their scripts would build for the host's running kernel.
# Only their sources are unpacked: a package that has a folder /lib would replace the root's symlink /lib.
_SCRIPT = r"""
release=$1
cd /oracle || exit
for deb in *.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C / --wildcards './usr/src/*'
done
for deb in *.deb; do
    name=${deb%%_*}
    conf=/$(dpkg-deb --fsys-tarfile "$deb" | tar -t | grep -m 1 '/usr/src/[^/]*/dkms\.conf$')
    read -r module version < <(. "$conf" >/dev/null 2>&1; echo "$PACKAGE_NAME $PACKAGE_VERSION")
    mkdir -p "results/$name"
    { dkms add "${conf%/dkms.conf}" && timeout "$2" dkms build -m "$module" -v "$version" -k "$release"; } \
        >"results/$name/dkms" 2>&1 </dev/null
    echo $? >"results/$name/status"
    own=/var/lib/dkms/$module/$version
    cp "$own/build/make.log" "results/$name/make" 2>/dev/null
    find "$own/$release" -name '*.ko*' -printf '%f\n' >"results/$name/modules" 2>/dev/null
    echo "$name: $(cat "results/$name/status")"
done
dpkg-query -W -f '${Package} ${Version}\n' dkms gcc "linux-headers-$release" >results/versions
"""


class Verdict(StrEnum):
    """What dkms made of a package."""

    BUILT = "built"
    NOT_FOR_THIS_KERNEL = "not for this kernel"
    FAILED = "failed"


class DkmsBuild(msgspec.Struct, frozen=True, kw_only=True):
    """dkms's build of one package. error: the compiler's first. modules: the names of what was built."""

    verdict: Verdict
    error: str = ""
    modules: list[str] = []


class Oracle(msgspec.Struct, frozen=True, kw_only=True):
    """dkms's builds for one kernel, by package. versions: of what they were built with."""

    builds: dict[str, DkmsBuild]
    versions: dict[str, str]


async def fetch(packages: list[str], into: Path) -> list[Path]:
    """Download Debian 12's packages of these names into a folder."""
    root = AptRoot(load_archive(), "bookworm", "amd64")
    await root.update()
    return await root.download(await root.show(*packages), into)


async def ask(release: str, debs: list[Path]) -> Oracle:
    """Build the packages in `debs` for Debian's kernel of this release; the results stay in the cache."""
    state = key_of([_SCRIPT, *_INCLUDE, *sorted(deb.name for deb in debs)])
    kept = _KEPT / f"{release}-{state}.json"
    if kept.is_file():
        return msgspec.json.decode(kept.read_bytes(), type=Oracle)
    codename = "trixie" if "+deb13" in release else "bookworm"
    sources = []
    for suite in _SUITES[codename]:
        root = AptRoot(load_archive(), suite, "amd64")
        await root.update()
        sources.append(root.source_line)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _build(release, codename, sources, debs, scratch)
        found = _read(scratch / "results")
    kept.parent.mkdir(parents=True, exist_ok=True)
    paths.write_atomic(kept, msgspec.json.format(msgspec.json.encode(found)))
    return found


def _build(release: str, codename: str, sources: list[str], debs: list[Path], scratch: Path) -> None:
    """Run dkms in a new root; leaves its results in the folder `scratch`."""
    (scratch / "script").write_text(_SCRIPT)
    (scratch / "empty").mkdir()
    given = " ".join(f"'{path}'" for path in [*debs, scratch / "script"])
    argv = [
        *("mmdebstrap", "--quiet", "--variant=apt", "--format=null"),
        f"--include={','.join([*_INCLUDE, f'linux-headers-{release}'])}",
        '--customize-hook=mkdir "$1/oracle"',
        f"--customize-hook=copy-in {given} /oracle",
        f'--customize-hook=chroot "$1" bash /oracle/script {release} {_LIMIT}',
        f"--customize-hook=copy-out /oracle/results {scratch}",
        *(codename, "/dev/null", *sources),
    ]
    subprocess.run(argv, check=True)


def _read(results: Path) -> Oracle:
    versions = dict(line.split() for line in (results / "versions").read_text().splitlines())
    return Oracle(
        builds={folder.name: _verdict(folder) for folder in sorted(results.iterdir()) if folder.is_dir()},
        versions=versions,
    )


def _verdict(folder: Path) -> DkmsBuild:
    said = (folder / "dkms").read_text(errors="replace")
    if (folder / "status").read_text().strip() == "0":
        names = (folder / "modules").read_text().split()
        return DkmsBuild(verdict=Verdict.BUILT, modules=sorted(name.partition(".ko")[0] for name in names))
    if "BUILD_EXCLUSIVE" in said:
        return DkmsBuild(verdict=Verdict.NOT_FOR_THIS_KERNEL)
    if (folder / "status").read_text().strip() == "124":
        raise SystemExit(f"{folder.name}: dkms was not done in {_LIMIT} s")
    make = folder / "make"
    log = make.read_text(errors="replace") if make.exists() else ""
    return DkmsBuild(verdict=Verdict.FAILED, error=first_error(log) or said.strip()[-300:])
