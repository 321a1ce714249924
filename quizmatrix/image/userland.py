"""Cross-builds busybox for the small image, where Debian has no packages of an architecture.

It builds Debian's source package with Debian's patches and configuration of the static busybox, and links it
statically against the cross compiler's C library.
"""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core import paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.process import Tell
from quizmatrix.debian import sources
from quizmatrix.image.artifact import IMAGES
from quizmatrix.model.arch import Arch


async def build_programs(arch: Arch, tell: Tell) -> dict[str, bytes]:
    """Build busybox for an architecture; returns programs by name.

    Raises HostError where a tool is missing, UnpreparedError where the compiler fails, NotFetchedError where
    the sources cannot be fetched.
    """
    compiler = f"{arch.facts.cross_prefix}gcc"
    for tool, package in (
        (compiler, arch.facts.build.compiler_package),
        ("make", "make"),
        ("gcc", "gcc"),
    ):
        process.require_program(tool, package)
    log = IMAGES.root / f"small-{arch.name}.log"
    with paths.scratch(IMAGES.root, "build") as name:
        folder = Path(name)
        busybox = await sources.obtain("busybox", folder, tell)
        tell(f"building busybox for {arch.name}")
        log.unlink(missing_ok=True)
        return {"busybox": await _busybox(busybox, arch, log)}


async def _busybox(tree: Path, arch: Arch, log: Path) -> bytes:
    config = tree / "debian/config/pkg/static"
    if not config.is_file():
        raise sources.unknown_layout("busybox")
    # Its tc(8) needs definitions that kernel headers lack since 6.8, Debian 13's too.
    text = config.read_text().replace("CONFIG_TC=y", "# CONFIG_TC is not set")
    (tree / ".config").write_text(text)
    make = ["make", f"ARCH={arch.facts.build.make_arch}", f"CROSS_COMPILE={arch.facts.cross_prefix}"]
    step = BuildStep(fact=f"{tree.name} could not be built", folder=tree, log=log, advice=sources.ADVICE)
    await step.run(["sh", "-c", 'yes "" | "$@"', "sh", *make, "oldconfig"])
    await step.run([*make, f"-j{process.usable_cpus()}", "busybox"])
    return (tree / "busybox").read_bytes()
