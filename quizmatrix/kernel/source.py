"""One interface to all kernel sources: turns a kernel's name in a matrix into a stored kernel."""

from __future__ import annotations

import contextlib
import importlib

import msgspec
from msgspec.structs import replace

from quizmatrix.core.errors import DamagedError, HostError, NotInArchiveError, UnpreparedError, UsageError
from quizmatrix.core.nearest import did_you_mean
from quizmatrix.kernel import artifact
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import DEFAULT, KernelOptions, Order
from quizmatrix.model import named
from quizmatrix.model.arch import Arch
from quizmatrix.model.cells import INSTALLED

# The module of each source, in the order in which they are named to a person.
_MODULES = {
    "debian": "debian",
    "debian-source": "debiansource",
    "kernel.org": "kernelorg",
    "git": "git",
    "tarball": "tarball",
    "path": "worktree",
    "package": "package",
    "files": "filesfolder",
    "installed": "installed",
    "named": "named",
}
SOURCES = tuple(_MODULES)
# Those that a person writes: a matrix makes the others' specifications.
_WRITTEN = tuple(name for name in SOURCES if name != "named")
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
            next_step=did_you_mean(name, _WRITTEN) or f"Known: {', '.join(_WRITTEN)}.",
        )


def parse_spec(text: str) -> KernelSpec:
    """Parse `6.1`, `6.1.176`, `newest` or `SOURCE:WANTED`. Raises UsageError where it is none of these."""
    source, colon, wanted = text.partition(":")
    if not colon and text != INSTALLED:
        source, wanted = DEFAULT_SOURCE, text
    check_name(source, text)
    try:
        return KernelSpec(source=source, wanted=source_named(source).check(wanted))
    except ValueError as error:
        raise UsageError(
            f"unknown kernel `{wanted or text}`",
            cause=str(error),
            next_step=source_named(source).example
            or "A kernel is a series (6.1), an exact version (6.1.176), a candidate (6.13-rc2), "
            f"next-DATE, master, `newest`, or SOURCE:KERNEL with one of the sources {', '.join(_WRITTEN)}.",
        ) from error


def find(text: str, arch: Arch, options: KernelOptions = DEFAULT) -> Kernel | None:
    """The cached kernel `text` for an architecture; None where there is none.

    Raises DamagedError where it is damaged.
    """
    spec = parse_spec(text)
    recipe = source_named(spec.source).recipe(spec.wanted, arch)
    return artifact.find(_reference(spec, options), arch.name, recipe)


def is_public(text: str) -> bool:
    """Whether the kernel `text` is built from a source that every host can fetch."""
    spec = parse_spec(text)
    source = source_named(spec.source)
    return source.is_built and not source.is_local(spec.wanted)


def recipe_of(text: str, arch: Arch) -> str:
    """What the kernel `text` is made by on this host: see KernelSource.recipe."""
    spec = parse_spec(text)
    return source_named(spec.source).recipe(spec.wanted, arch)


def was_built(text: str, arch: Arch, options: KernelOptions = DEFAULT) -> bool:
    """Whether the kernel `text` was fetched or built before, perhaps from another state of its source."""
    return artifact.is_known(_reference(parse_spec(text), options), arch.name)


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
    order = replace(order, is_offline=offline)
    arch, tell = order.arch, order.tell
    spec = parse_spec(text)
    source = source_named(spec.source)
    reference = _reference(spec, order.options)
    # Computed once, before the build: if a work tree changes during the build, the next run builds it again.
    recipe = source.recipe(spec.wanted, arch)
    no_headers: NotInArchiveError | None = None
    kernel, damage = (None, None) if refresh else _cached(reference, arch, recipe, thorough=thorough)
    if kernel is not None and damage is None:
        try:
            if await _has_tree(kernel, source, order, offline=offline):
                return kernel
        except NotInArchiveError as error:
            no_headers = error
            tell(f"{error}; taking the next kernel that has them")
    if offline and not source.is_local(spec.wanted):
        raise _is_offline(
            str(damage) if damage else f"the kernel {named.shown(text)} for {arch.name} is not in the cache",
            "`quizmatrix prepare` of these cells, or this without --offline",
        )
    if damage is not None:
        tell(f"{damage}; fetching it again")
        if kernel is not None:
            # Only the thorough check found the damage; without it, the fetch would take the kernel for good.
            artifact.KERNELS.remove(kernel.record.key)
    if source.is_built and order.elsewhere is None:
        # Checked before the source, 140 MB, is fetched.
        from quizmatrix.kernel import build

        build.find_compiler(order)
    try:
        return await _fetched(spec, recipe, order, refresh=refresh, thorough=thorough)
    except UnpreparedError as error:
        # There is no next kernel: what is missing are the headers of the one in the cache.
        raise no_headers or error from error.__cause__


def _cached(
    reference: str, arch: Arch, recipe: str, *, thorough: bool
) -> tuple[Kernel | None, DamagedError | None]:
    """The cached kernel of a reference, and what is wrong with it."""
    kernel: Kernel | None = None
    try:
        kernel = artifact.find(reference, arch.name, recipe)
        if kernel is not None:
            kernel.check(thoroughly=thorough)
    except DamagedError as error:
        return kernel, error
    return kernel, None


def _is_offline(fact: str, next_step: str) -> UnpreparedError:
    cause = "--offline forbids fetching it"
    return UnpreparedError(fact, cause=cause, next_step=f"Once, with a network: {next_step}.")


async def _has_tree(kernel: Kernel, source: KernelSource, order: Order, *, offline: bool) -> bool:
    """Whether a cached kernel has all that the order asks for. A missing build tree is fetched.

    Raises NotInArchiveError where its headers are not to be had any more, UnpreparedError where they cannot
    be fetched.
    """
    if not order.needs_tree or kernel.build_tree is not None:
        return True
    record = kernel.record
    if record.build is not None:
        order.tell(f"{record.build} is gone; building the kernel again")
        return False
    if source.build_tree is None:
        return False
    if offline:
        raise _is_offline(
            f"what modules for {record.release} are built against is not in the cache",
            "this without --offline",
        )
    await source.build_tree(kernel, order)
    return True


async def _made(spec: KernelSpec, order: Order) -> str:
    """Fetch or build the kernel, here or elsewhere; returns its key."""
    if order.elsewhere is not None and is_public(spec.text):
        try:
            return await order.elsewhere(spec.text, order)
        except HostError as error:
            order.tell(f"{error}; building it here")
    return await source_named(spec.source).fetch(spec.wanted, order)


async def _fetched(spec: KernelSpec, recipe: str, order: Order, *, refresh: bool, thorough: bool) -> Kernel:
    """Fetch or build the kernel. On a refresh, the earlier kernel is kept if the source cannot be reached."""
    source, reference, arch = source_named(spec.source), _reference(spec, order.options), order.arch
    earlier: Kernel | None = None
    if refresh:
        with contextlib.suppress(DamagedError):
            earlier = artifact.find(reference, arch.name, recipe)
    try:
        key = await _made(spec, replace(order, is_replacing=earlier is not None))
    except NotInArchiveError as error:
        if earlier is None:
            raise
        earlier.check(thoroughly=thorough)
        order.tell(f"{error}; keeping {earlier.record.release}")
        await _has_tree(earlier, source, order, offline=False)
        return earlier
    artifact.write_reference(reference, arch.name, recipe, key)
    kernel = artifact.load(key)
    if kernel is None:
        raise DamagedError(f"the kernel {named.shown(spec.text)} for {arch.name} vanished from the cache")
    return kernel
