"""Builds kernels out of tree: joins configuration fragments, checks the result, compiles, and stores it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio

from quizmatrix.core import paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import DamagedError, UnpreparedError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.store import key_of
from quizmatrix.kernel import artifact, modules
from quizmatrix.kernel.order import DEFAULT, KernelOptions, Order
from quizmatrix.kernel.tree import KernelTree
from quizmatrix.model import kconfig
from quizmatrix.model.arch import Arch

# Part of every key; has to be changed when the same source is built differently.
_RECIPE = "3"

# Seconds between two progress messages of a build.
_PROGRESS = 15.0

# The programs that a kernel's build runs, and their Debian packages.
_TOOLS = {"make": "make", "gcc": "gcc", "flex": "flex", "bison": "bison", "bc": "bc", "depmod": "kmod"}

_ENVIRONMENT = {
    # ccache(1): depend mode saves the second preprocessing of files that are not in the cache, a quarter of a
    # build's time. (After a change of the configuration no file is in the cache.) Inode cache: a header that
    # a thousand files include is hashed once.
    "CCACHE_DEPEND": "1",
    "CCACHE_INODECACHE": "1",
    # For the build's own programs (kernel document kbuild/kbuild.rst): they run for seconds, and need no -O2.
    "HOSTCFLAGS": "-O1",
}

_ADVICE = {"mrproper": "The source was built in place: run `make mrproper` in it, or name another tree."}


def recipe(_wanted: str, arch: Arch) -> str:
    """A text that names all that a build depends on, without the source and the compiler.

    A new version of the compiler alone does not cause a kernel to be built again; --refresh does.
    """
    parts = [_RECIPE, repr(arch.facts.build), kconfig.fragments_hash(arch.name)]
    return key_of(parts, 64)


def builds_dir() -> Path:
    """The folder of the build trees. They stay, for external modules and for the next build."""
    # Without symlinks, as of a Store.
    return (paths.cache_dir() / "builds").resolve()


def builds_locked(on_wait: Callable[[], None]) -> AbstractAsyncContextManager[None]:
    """The lock that is held while a kernel is built, or a build tree is removed. on_wait: before waiting."""
    return paths.locked(paths.lock_file("build"), on_wait)


def shared_build_folder(place: Path, order: Order) -> str:
    """The name of the build folder of a source tree that changes.

    All states of the tree at `place` share it, so that make compiles only what changed.
    """
    chosen = order.options
    # This text is as in earlier versions: with another name everything would be compiled again.
    options = f"Options(variant={chosen.variant!r}, config={chosen.config!r}, clang={chosen.clang!r})"
    mark = key_of([f"{place} {order.arch.name} {options}"])
    # make(1) cannot handle spaces in paths.
    return re.sub(r"[^\w.+-]", "_", f"{place.name}-{order.arch.name}-{mark}")


async def build(tree: KernelTree, order: Order) -> str:
    """Build the kernel in `tree`, unless the cache has it; returns its key.

    Raises HostError where a tool is missing, UnpreparedError where the requested configuration is impossible
    or the compiler fails.
    """
    arch, options, tell = order.arch, order.options, order.tell
    compiler = find_compiler(order)
    # A commit that is not checked out yet has none.
    own = kconfig.fragment_of_tree(tree.path, options.variant) if tree.defined is None else None
    wishes = kconfig.wishes_for(arch.name, tree.version, options.variant, list(options.config), own)
    key = await _key(tree, arch, wishes, compiler)
    if _is_stored(key, order):
        return key
    pool = order.pool or JobServer(order.jobs or process.usable_cpus())
    work = _KernelBuild(tree, order, key, compiler, pool)
    try:
        async with paths.locked(work.lock, lambda: tell("waiting for another build of the same")):
            if _is_stored(key, order):
                return key
            # An impossible configuration is reported now, not after waiting for another build.
            async with order.fetching:
                await work.check_configuration(wishes)
            # Only one build at a time, over all processes of this user, since each uses all cores.
            async with builds_locked(lambda: tell("waiting for another build to end")):
                if not work.is_for_stored:
                    artifact.KERNELS.remove(key)
                await work.build(wishes)
    except OSError as error:
        raise host_error(f"build {tree.origin}", error) from error
    finally:
        if order.pool is None:
            pool.close()
    return key


def _is_stored(key: str, order: Order) -> bool:
    try:
        kernel = artifact.load(key)
    except DamagedError:
        return False
    return kernel is not None and not (order.needs_tree and kernel.build_tree is None)


def tools_for(arch: Arch, options: KernelOptions = DEFAULT) -> dict[str, str]:
    """The programs that build a kernel for an architecture, and their Debian packages."""
    tools = dict(_TOOLS)
    if not arch.is_native:
        # With clang, too: it has no binutils of its own, which this package brings.
        tools[f"{arch.facts.cross_prefix}gcc"] = arch.facts.build.compiler_package
    if options.clang:
        tools["clang"] = "clang"
    return tools


def find_compiler(order: Order) -> str:
    """The compiler's name. Raises HostError, which names the package, where a tool is missing."""
    for tool, package in tools_for(order.arch, order.options).items():
        process.require_program(tool, package)
    if order.options.clang:
        return "clang"
    return "gcc" if order.arch.is_native else f"{order.arch.facts.cross_prefix}gcc"


def _uses_ccache() -> bool:
    """Whether ccache(1) is used: not if CCACHE_DISABLE is set, since starting it would cost time.

    Nor for a user without a home directory or CCACHE_DIR: then ccache fails, and compiles nothing.
    """
    if "CCACHE_DISABLE" in os.environ or process.find_program("ccache") is None:
        return False
    return "CCACHE_DIR" in os.environ or paths.has_home()


async def _key(tree: KernelTree, arch: Arch, wishes: list[kconfig.Wish], compiler: str) -> str:
    said = (await process.run([compiler, "--version"])).output.splitlines()[:1]
    facts = arch.facts.build
    parts = [_RECIPE, tree.key, arch.name, facts.make_arch, facts.target, facts.image, repr(said)]
    parts += [*facts.make_options, *sorted(wish.line for wish in wishes)]
    return f"{tree.version.text}-{arch.name}-{key_of(parts)}"


class _KernelBuild:
    """One build of a kernel. Its folder stays after an interruption, and the next build continues there."""

    def __init__(self, tree: KernelTree, order: Order, key: str, compiler: str, pool: JobServer) -> None:
        self._tree = tree
        self._arch = arch = order.arch
        self._key = key
        self._tell = order.tell
        self._pool = pool
        self._is_configured = False
        self._folder = builds_dir() / (tree.work or key)
        self._log = self._folder.with_name(f"{self._folder.name}.log")
        ccache = "ccache " if _uses_ccache() else ""
        prefix = "" if arch.is_native else arch.facts.cross_prefix
        self._tools = [f"ARCH={arch.facts.build.make_arch}", f"CROSS_COMPILE={prefix}", f"CC={compiler}"]
        self._make = [
            *("make", "-C", str(tree.path), f"O={self._folder}", *self._tools[:-1], f"CC={ccache}{compiler}"),
            # No host name and no time in the kernel, so that the same source gives the same image.
            *("KBUILD_BUILD_USER=quizmatrix", "KBUILD_BUILD_HOST=quizmatrix"),
            "KBUILD_BUILD_TIMESTAMP=1970-01-01",
            "KBUILD_BUILD_VERSION=1",
            *arch.facts.build.make_options,
        ]

    @property
    def lock(self) -> Path:
        """The lock that is held while the folder is used."""
        return paths.lock_file(f"build-{self._folder.name}")

    async def check_configuration(self, wishes: list[kconfig.Wish]) -> None:
        """Check that the configuration is possible, as far as that needs no build lock."""
        if self._tree.defined is not None:
            asked = [wish for wish in wishes if wish.is_from_user and not wish.optional and wish.value != "n"]
            if asked:
                defined = await self._tree.defined([wish.symbol for wish in asked])
                self._refuse(kconfig.unknown(asked, defined))
        # Not where the folder holds a build: that stays usable until this build has the lock.
        elif not (self._folder / artifact.BUILD_STAMP).exists():
            await self._configure(wishes)
            self._is_configured = True

    async def build(self, wishes: list[kconfig.Wish]) -> None:
        """Build the kernel and store it in the cache."""
        await self._tree.check_out()
        # `kernel remove --unused` may have removed the folder while this build waited.
        if not (self._is_configured and (self._folder / ".config").exists()):
            await self._configure(wishes)
        await self._compile()
        await self._collect(wishes)

    @property
    def is_for_stored(self) -> bool:
        """Whether the kernel is stored already, and only its build tree, this folder, has to be built.

        Then the stored kernel must not be removed, since guests may be using it.
        """
        try:
            kernel = artifact.load(self._key)
        except DamagedError:
            return False
        return kernel is not None and kernel.record.build == str(self._folder)

    async def _configure(self, wishes: list[kconfig.Wish]) -> None:
        """Write the configuration, and check that it has everything that was asked for."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / artifact.BUILD_STAMP).unlink(missing_ok=True)
        fragment = self._folder / "quizmatrix.config"
        fragment.write_text("".join(f"{wish.line}\n" for wish in wishes), encoding="utf-8")
        merge = self._tree.path / "scripts/kconfig/merge_config.sh"
        self._tell(f"configuring {self._tree.origin} for {self._arch.name}")
        await self._run(*self._make, "tinyconfig")
        config = self._folder / ".config"
        config.write_text(kconfig.without_values(config.read_text(encoding="utf-8")), encoding="utf-8")
        await self._run("sh", str(merge), "-m", "-O", str(self._folder), str(config), str(fragment))
        await self._run(*self._make, "olddefconfig")
        got = kconfig.read_config(config.read_text(encoding="utf-8"))
        self._refuse(kconfig.unmet(wishes, got, self._tree.path))

    def _refuse(self, problems: list[kconfig.Unmet]) -> None:
        if problems:
            raise UnpreparedError(
                f"{self._tree.origin} for {self._arch.name} cannot be configured as asked",
                cause="; ".join(str(problem) for problem in problems),
                next_step="Mend the fragment, or mark the line `# optional` or `# from VERSION`.",
            )

    async def _compile(self) -> None:
        """Build the image and the modules."""
        what = f"building {self._tree.origin} for {self._arch.name}"
        self._tell(f"{what}: {self._log}")
        objects = 0
        spoke = anyio.current_time()

        def count_objects(data: bytes) -> None:
            nonlocal objects, spoke
            objects += data.count(b"  CC ")
            if anyio.current_time() - spoke > _PROGRESS:
                spoke = anyio.current_time()
                self._tell(f"{what}: {objects} objects")

        await self._run(*self._make, self._arch.facts.build.target, "modules", on_output=count_objects)

    async def _collect(self, wishes: list[kconfig.Wish]) -> None:
        """Store what was built in the cache."""
        release = (self._folder / "include/config/kernel.release").read_text().strip()
        with paths.new_dir(artifact.KERNELS.path(self._key)) as made:
            layer = made / artifact.LAYER
            target = layer / "usr"
            target.mkdir(parents=True)
            await self._run(
                *self._make, f"INSTALL_MOD_PATH={target}", "INSTALL_MOD_STRIP=1", "modules_install"
            )
            for link in ("build", "source"):
                (target / "lib/modules" / release / link).unlink(missing_ok=True)
            await modules.index_modules(layer, release)
            await self._copy_image(made / artifact.IMAGE)
            shutil.copyfile(self._folder / ".config", made / artifact.CONFIG)
            shutil.copyfile(self._folder / "System.map", made / artifact.SYSTEM_MAP)
            record = artifact.KernelRecord(
                key=self._key,
                arch=self._arch.name,
                version=self._tree.version.text,
                release=release,
                packages=[self._tree.origin],
                wishes=wishes,
                build=str(self._folder),
                make=self._tools,
            )
            artifact.write_record(made, record)
        (self._folder / artifact.BUILD_STAMP).write_text(self._key)

    async def _copy_image(self, target: Path) -> None:
        """Copy the kernel image without its symbols, which would cost time at every boot."""
        image = self._folder / self._arch.facts.build.image
        with image.open("rb") as file:
            is_elf = file.read(4) == b"\x7fELF"
        if is_elf:
            prefix = "" if self._arch.is_native else self._arch.facts.cross_prefix
            await self._run(f"{prefix}objcopy", "--strip-all", str(image), str(target))
        else:
            shutil.copyfile(image, target)

    async def _run(self, *argv: str, on_output: Callable[[bytes], None] = lambda _data: None) -> None:
        """Run a build step. Its output goes to the log, and its first error into the exception.

        on_output: called with each piece of the output.
        """
        step = BuildStep(
            fact=f"{self._tree.origin} could not be built for {self._arch.name}",
            # merge_config.sh writes to the current folder, which must not be the source.
            folder=self._folder,
            log=self._log,
            env=_ENVIRONMENT,
            pool=self._pool,
            on_output=on_output,
            advice=_ADVICE,
        )
        await step.run(argv)
