"""Builds, lists and removes Debian base images."""

from __future__ import annotations

from functools import partial

from quizmatrix.build.output import run_each
from quizmatrix.core.errors import DamagedError, UsageError
from quizmatrix.core.process import Tell
from quizmatrix.image import debian
from quizmatrix.image.artifact import IMAGES
from quizmatrix.kernel import source
from quizmatrix.model.arch import Arch, host_arch, load_arch
from quizmatrix.model.cells import cells_on_the_spot
from quizmatrix.model.matrix import Limits
from quizmatrix.prepare.preparer import Policy, Preparer

# The kernel of the guest that configures packages of an architecture whose programs this host cannot run.
_SETUP_KERNEL = "6.12"


def build(arches: list[str], *, suite: str | None, include: list[str], kernel: str | None) -> int:
    """Build an image for each architecture, and print progress. Returns exit status 125 where one fails.

    arches: by default this host's. include: packages and package sets. kernel: for the guest that configures
    an image.
    """
    debian.expand(include)
    loaded = [load_arch(name) for name in arches or [host_arch().name]]
    suites = {arch.name: debian.choose_suite(arch, suite) for arch in loaded}
    kernel = kernel or _SETUP_KERNEL
    source.parse_spec(kernel)
    preparer = Preparer(Policy())

    async def build_one(arch: Arch, tell: Tell) -> str:
        (cell,) = cells_on_the_spot([f"{kernel}-{arch.name}"], Limits())
        image = await preparer.build_image(cell, suites[arch.name], include, tell)
        return f"{image.key} ({image.disk.stat().st_size // 1_000_000} MB)"

    return run_each({arch.name: partial(build_one, arch) for arch in loaded})


def print_list() -> None:
    """Print the Debian images in the cache."""
    from tabulate import tabulate

    current = debian.current_keys()
    rows = []
    for key in IMAGES.stored():
        try:
            image = debian.load(key)
        except DamagedError:
            rows.append([key, "damaged", "", "", ""])
            continue
        if image is not None:
            size = f"{image.disk.stat().st_size // 1_000_000} MB"
            use = "yes" if key in current else "no"
            rows.append([key, use, ", ".join(image.include), str(len(image.installed)), size])
    if rows:
        headers = ["image", "in use", "includes", "packages", "on disk"]
        print(tabulate(rows, headers=headers, disable_numparse=True))
    else:
        print("There are no Debian images in the cache yet: quizmatrix image build")


def remove(keys: list[str]) -> None:
    """Remove images from the cache."""
    known = IMAGES.stored()
    for key in keys:
        if key not in known:
            raise UsageError(f"`{key}` is no image in the cache", next_step="quizmatrix image list")
    for key in keys:
        IMAGES.remove(key)
        print(f"removed {key}")
