"""The small image's programs, cross-built where Debian has no packages of an architecture.

busybox of Debian's source package, with Debian's patches and its configuration of the static busybox,
linked statically against the cross compiler's C library.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from quizmatrix.core import buildstep as steps
from quizmatrix.core import process
from quizmatrix.core.process import Tell
from quizmatrix.debian import sources as debiansources
from quizmatrix.image.artifact import images_dir
from quizmatrix.model.arch import Arch


async def build_programs(arch: Arch, tell: Tell) -> dict[str, bytes]:
    """busybox for an architecture, by name.

    Raises HostError where a tool is missing, UnpreparedError where the compiler fails, NotFetchedError
    where the sources cannot be had.
    """
    compiler = f"{arch.facts.cross_prefix}gcc"
    for tool, package in (
        (compiler, arch.facts.build.compiler_package),
        ("make", "make"),
        ("gcc", "gcc"),
    ):
        process.require_program(tool, package)
    top = images_dir()
    top.mkdir(parents=True, exist_ok=True)
    log = top / f"small-{arch.name}.log"
    with tempfile.TemporaryDirectory(dir=top, prefix=".build.") as name:
        folder = Path(name)
        busybox = await debiansources.obtain("busybox", folder, tell)
        tell(f"building busybox for {arch.name}")
        log.unlink(missing_ok=True)
        return {"busybox": await _busybox(busybox, arch, log)}


async def _busybox(tree: Path, arch: Arch, log: Path) -> bytes:
    config = tree / "debian/config/pkg/static"
    if not config.is_file():
        raise debiansources.unknown_layout("busybox")
    # Its tc(8) needs definitions that the kernel's headers lost with 6.8, Debian 13's among them.
    text = config.read_text().replace("CONFIG_TC=y", "# CONFIG_TC is not set")
    (tree / ".config").write_text(text)
    make = ["make", f"ARCH={arch.facts.build.make_arch}", f"CROSS_COMPILE={arch.facts.cross_prefix}"]
    await _step(["sh", "-c", 'yes "" | "$@"', "sh", *make, "oldconfig"], tree, log)
    await _step([*make, f"-j{process.usable_cpus()}", "busybox"], tree, log)
    return (tree / "busybox").read_bytes()


async def _step(argv: list[str], tree: Path, log: Path) -> None:
    fact = f"{tree.name} could not be built"
    await steps.run(argv, log, fact=fact, cwd=tree, env={}, advice=debiansources.ADVICE)
