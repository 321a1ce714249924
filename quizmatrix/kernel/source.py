"""One interface to all kernel sources: turns a kernel's name in a matrix into a stored kernel."""

from __future__ import annotations

import contextlib
import importlib

import msgspec
from msgspec.structs import replace

from quizmatrix.core.errors import DamagedError, NotInArchiveError, UnpreparedError, UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.kernel import artifact
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import DEFAULT, KernelOptions, Order
from quizmatrix.model.arch import Arch

# The module of each source, in the order in which they are named to a person.
_MODULES = {
    "debian": "debian",
    "debian-source": "debiansource",
    "kernel.org": "kernelorg",
    "git": "git",
    "tarball": "tarball",
    "path": "worktree",
}
SOURCES = tuple(_MODULES)
DEFAULT_SOURCE = "debian"


def source_named(name: str) -> KernelSource:
    """The source of this name, one of SOURCES. Imports its module and no other."""
    source: KernelSource = importlib.import_module(f"quizmatrix.kernel.{_MODULES[name]}").SOURCE
    return source


class KernelSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel as named in a matrix. source: the name of a source. wanted: the text after `NAME:`."""

    source: str
    wanted: str

    @property
    def text(self) -> str:
        """The specification as text, with the source."""
        return f"{self.source}:{self.wanted}"


def check_name(name: str, where: str) -> None:
    """Raise UsageError where there is no source of this name. where: the text that names it."""
    if name not in SOURCES:
        raise UsageError(
            f"unknown kernel source `{name}` in `{where}`",
            next_step=did_you_mean(name, SOURCES) or f"Known: {', '.join(SOURCES)}.",
        )


def parse_spec(text: str) -> KernelSpec:
    """Parse `6.1`, `6.1.176`, `newest` or `SOURCE:WANTED`. Raises UsageError where it is none of these."""
    source, colon, wanted = text.partition(":")
    if not colon:
        source, wanted = DEFAULT_SOURCE, text
    check_name(source, text)
    try:
        return KernelSpec(source=source, wanted=source_named(source).check(wanted))
    except ValueError as error:
        raise UsageError(
            f"unknown kernel `{wanted}`",
            cause=str(error),
            next_step=source_named(source).example
            or "A kernel is a series (6.1), an exact version (6.1.176), a candidate (6.13-rc2), "
            f"next-DATE, master, `newest`, or SOURCE:KERNEL with one of the sources {', '.join(SOURCES)}.",
        ) from error


def find(text: str, arch: Arch, options: KernelOptions = DEFAULT) -> Kernel | None:
    """The cached kernel `text` for an architecture; None where there is none.

    Raises DamagedError where it is damaged.
    """
    spec = parse_spec(text)
    recipe = source_named(spec.source).recipe(spec.wanted, arch)
    return artifact.find(_reference(spec, options), arch.name, recipe)


def _reference(spec: KernelSpec, options: KernelOptions) -> str:
    """The name of a kernel's reference; it contains the options, which make another kernel."""
    variant = f"+{options.variant}" if options.variant else ""
    return " ".join([f"{spec.text}{variant}", *options.config, *(["--clang"] if options.clang else [])])


async def obtain(
    text: str, order: Order, *, offline: bool = False, refresh: bool = False, thorough: bool = False
) -> Kernel:
    """The kernel `text`, fetched or built where the cache lacks it.

    offline: fetch nothing. refresh: ask the source again which kernel `text` means. thorough: check all files
    of a cached kernel. A damaged kernel is fetched again. Raises UnpreparedError where the kernel cannot be
    fetched or built.
    """
    arch, tell = order.arch, order.tell
    spec = parse_spec(text)
    source = source_named(spec.source)
    reference = _reference(spec, order.options)
    # Computed once, before the build: if a work tree changes during the build, the next run builds it again.
    recipe = source.recipe(spec.wanted, arch)
    damage: DamagedError | None = None
    kernel: Kernel | None = None
    if not refresh:
        try:
            kernel = artifact.find(reference, arch.name, recipe)
            if kernel is not None:
                kernel.check(thoroughly=thorough)
                if not (order.needs_tree and kernel.lacks_build_tree):
                    return kernel
                tell(f"{kernel.record.build} is gone; building the kernel again")
        except DamagedError as error:
            damage = error
    if offline and not source.is_local(spec.wanted):
        raise UnpreparedError(
            str(damage) if damage else f"the kernel {text} for {arch.name} is not in the cache",
            cause="--offline forbids fetching it",
            next_step="Once, with a network: `quizmatrix prepare` of these cells, or this without --offline.",
        )
    if damage is not None:
        tell(f"{damage}; fetching it again")
        if kernel is not None:
            # Only the thorough check found the damage; without it, the fetch would take the kernel for good.
            artifact.KERNELS.remove(kernel.record.key)
    if source.is_built:
        # Checked before the source, 140 MB, is fetched.
        from quizmatrix.kernel import build

        build.find_compiler(order)
    return await _fetched(spec, recipe, order, refresh=refresh, thorough=thorough)


async def _fetched(spec: KernelSpec, recipe: str, order: Order, *, refresh: bool, thorough: bool) -> Kernel:
    """Fetch or build the kernel. On a refresh, the earlier kernel is kept if the source cannot be reached."""
    source, reference, arch = source_named(spec.source), _reference(spec, order.options), order.arch
    earlier: Kernel | None = None
    if refresh:
        with contextlib.suppress(DamagedError):
            earlier = artifact.find(reference, arch.name, recipe)
    try:
        key = await source.fetch(spec.wanted, replace(order, is_replacing=earlier is not None))
    except NotInArchiveError as error:
        if earlier is None:
            raise
        earlier.check(thoroughly=thorough)
        order.tell(f"{error}; keeping {earlier.record.release}")
        return earlier
    artifact.write_reference(reference, arch.name, recipe, key)
    kernel = artifact.load(key)
    if kernel is None:
        raise DamagedError(f"the kernel {spec.text} for {arch.name} vanished from the cache")
    return kernel
