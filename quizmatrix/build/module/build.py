"""Builds one module of the user's for one kernel, and installs it for that kernel's guests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from quizmatrix.build.module import dkms, dkmspackage, mirror
from quizmatrix.build.module.module import NAME_ITS_FOLDER, Module, NeedsOtherModuleError, store_of
from quizmatrix.build.parts import Built, Installed, NotForThisKernel
from quizmatrix.core import paths, process, uses
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import HostError, UnpreparedError, UsageError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.core.store import key_of
from quizmatrix.kernel import buildlayer, external
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import BuildTree

# Part of every key; has to be changed when the same inputs are built differently.
_RECIPE = "2"

# The variable that names the files with the symbols of other modules.
_OTHERS_SYMBOLS = "KBUILD_EXTRA_SYMBOLS"
_UNDEFINED = re.compile(r'modpost: "([^"]+)" \[.*\] undefined!')

# Variables that quizmatrix sets for make(1), so that the user must not.
_OURS = frozenset(
    {"ARCH", "CROSS_COMPILE", "CC", "M", "O", "MO", "INSTALL_MOD_PATH", "INSTALL_MOD_DIR", "DEPMOD"}
)


class ModuleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a build differs from the default.

    make: variables for make(1), as NAME=VALUE. is_sandboxed: whether what a dkms.conf starts is sandboxed.
    """

    make: tuple[str, ...] = ()
    is_sandboxed: bool = True


def check_options(options: ModuleOptions) -> None:
    """Raise UsageError where a variable is malformed, or is one that quizmatrix sets."""
    for word in options.make:
        name, equals, _ = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII):
            raise UsageError(f"--make {word}", next_step="Write --make NAME=VALUE, as in CONFIG_HELLO=m.")
        if name in _OURS:
            raise UsageError(f"--make {word}", cause=f"{name} is what the kernel was built with, or ours")


class OtherModules(msgspec.Struct, frozen=True, kw_only=True):
    """The other modules of one build.

    neighbours: modules whose headers may be used. built: those of them that are built for the kernel already,
    so that their symbols may be used. pending: those that may still be built, if this one waits for them.
    """

    neighbours: tuple[Module, ...] = ()
    built: tuple[Module, ...] = ()
    pending: tuple[Module, ...] = ()


NO_OTHERS = OtherModules()


async def build(
    module: Module,
    kernel: Kernel,
    options: ModuleOptions,
    pool: JobServer,
    tell: Tell,
    *,
    other_modules: OtherModules = NO_OTHERS,
) -> Built:
    """Build a module for a kernel, unless it is up to date, and add it to the kernel's guests.

    Raises NotForThisKernel where its dkms.conf leaves the kernel out, NeedsOtherModuleError where a module
    in `other_modules` has to be built before, or nothing exports a symbol that it needs, UnpreparedError with
    the compiler's first error or where the kernel has no build tree, HostError where a tool is missing or the
    disk is full.
    """
    work = _ModuleBuild(module, kernel, options, pool, tell, other_modules)
    store = store_of(module.mark)
    async with store.locked(kernel.record.key, lambda: tell("waiting for another build of the same")):
        try:
            built = await work.take()
            _refer(module, kernel, built, tell)
        except NotForThisKernel:
            buildlayer.forget(kernel.record.key, module.mark)
            raise
        except OSError as error:
            raise host_error(f"build {module.path}", error) from error
    return built


@contextmanager
def removing(mark: str) -> Iterator[None]:
    """Lock the module of this mark against builds and use. Raises HostError where a process uses it."""
    store = store_of(mark)
    locks = paths.lock_file(store.lock.format("*"))
    with ExitStack() as stack:
        for lock in sorted(locks.parent.glob(locks.name)):
            stack.enter_context(uses.exclusive_lock(lock, f"the module {mark}"))
        for layer in sorted(store.path("").glob("[!.]*")):
            stack.enter_context(uses.removing(layer, f"the module {mark}"))
        yield


def _refer(module: Module, kernel: Kernel, built: Built, tell: Tell) -> None:
    """Add a module to the kernel's guests, and remove modules of the same name from other folders."""
    key = kernel.record.key
    names = buildlayer.module_names(built.layer)
    for other in buildlayer.module_references(key):
        both = names.intersection(*(buildlayer.module_names(Path(layer)) for layer in other.layers))
        if other.name != module.mark and both:
            tell(f"{', '.join(sorted(both))} is no longer the one of {other.origin}")
            buildlayer.forget(key, other.name)
    reference = buildlayer.LayerReference(
        name=module.mark,
        origin=str(module.path),
        layers=[str(built.layer)],
        # What a dkms.conf makes, it strips itself.
        unstripped="" if module.is_dkms else str(module.copy(kernel) / module.below),
    )
    buildlayer.write_reference(key, reference)


class _ModuleBuild:
    """One build of a module for a kernel. Its folder stays, and the next build continues there."""

    def __init__(
        self,
        module: Module,
        kernel: Kernel,
        options: ModuleOptions,
        pool: JobServer,
        tell: Tell,
        other_modules: OtherModules,
    ) -> None:
        key = kernel.record.key
        self._other_modules = other_modules
        self._module = module
        self._kernel = kernel
        self._options = options
        self._pool = pool
        self._tell = tell
        self._copy = module.copy(kernel)
        self._log = module.log(kernel)
        self._installed = Installed(part=key, store=store_of(module.mark))

    async def take(self) -> Built:
        files = mirror.scan(self._module.path)
        made_of = [_RECIPE, self._kernel.record.key, *self._options.make, mirror.name_of(files)]
        made_of += [mirror.name_of(mirror.scan(other.path)) for other in self._other_modules.neighbours]
        made_of += [other.mark for other in self._other_modules.built]
        state = key_of(made_of)
        layer = self._installed.layer(state)
        if self._installed.is_current(state) and self._module.symbols_folder(self._kernel).is_dir():
            return Built(layer=layer, was_reused=True)
        tree = external.require_build_tree(self._kernel)
        tree.require_program("make", "make")
        tree.require_program(tree.variables.get("CC") or "gcc", "gcc")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        if self._module.is_dkms:
            await self._make_dkms(files, tree, layer)
        else:
            await self._make(files, tree, layer)
        self._module.keep_symbols(self._kernel)
        self._installed.replace(state)
        return Built(layer=layer)

    async def _make(self, files: dict[str, mirror.State], tree: BuildTree, layer: Path) -> None:
        """Build the module with kbuild, and install it into a layer. What did not change is not compiled."""
        words, exported = self._words()
        if exported:
            words.append(f"{_OTHERS_SYMBOLS}={' '.join(exported)}")
        make = ["make", "-C", str(tree.folder), *tree.make, *words, f"M={self._copy / self._module.below}"]
        mirror.follow(self._module.path, files, self._copy)
        self._show_neighbours()
        self._tell(f"compiling {self._module.path.name}")
        await self._run([*make, "modules"], tree.environment)
        self._check_for_modules()
        with paths.new_dir(layer) as made:
            # Without depmod: one index is made later, for all modules of a guest together.
            into = [f"INSTALL_MOD_PATH={made / 'usr'}", "INSTALL_MOD_DIR=updates", "DEPMOD=true"]
            await self._run([*make, *into, "INSTALL_MOD_STRIP=1", "modules_install"], tree.environment)
            buildlayer.check(self._kernel, made)

    async def _make_dkms(self, files: dict[str, mirror.State], tree: BuildTree, layer: Path) -> None:
        """Build the module as its dkms.conf says, from a fresh copy, and install it into a layer."""
        words, exported = self._words()
        mirror.copy_afresh(self._module.path, files, self._copy)
        others = (dkmspackage.load(other, self._kernel) for other in self._other_modules.built)
        packages = [other for other in others if other is not None]
        work = dkms.DkmsWork(
            module=self._module,
            kernel=self._kernel,
            tree=tree,
            copy=self._copy.resolve(),
            log=self._log,
            make=words,
            exported=exported,
            packages=packages,
            pending=[name for other in self._other_modules.pending if (name := other.package_name)],
            is_sandboxed=self._options.is_sandboxed,
            run=self._run,
            tell=self._tell,
        )
        package = await dkms.build(work, layer)
        paths.write_atomic(dkmspackage.record_of(self._module, self._kernel), package.encode())

    def _words(self) -> tuple[list[str], list[str]]:
        """The user's variables for make(1), and the files with the symbols of other modules."""
        exported = [str(file) for other in self._other_modules.built for file in other.symbols(self._kernel)]
        words = []
        for word in self._options.make:
            name, _, value = word.partition("=")
            if name == _OTHERS_SYMBOLS:
                exported.insert(0, value)
            else:
                words.append(word)
        return words, exported

    def _show_neighbours(self) -> None:
        """Make symlinks for `-I$(src)/../NAME`, the headers of a module in the folder beside this one."""
        for other in self._other_modules.neighbours:
            link = self._module.work / other.path.name
            if other.path.parent == self._module.path.parent and (link.is_symlink() or not link.exists()):
                link.unlink(missing_ok=True)
                link.symlink_to(other.path)

    def _where_it_is(self, symbol: str) -> str:
        """The next step for an undefined symbol: the command that builds both modules, if that is known."""
        key = self._kernel.record.key
        for found in buildlayer.module_references(key):
            files = Module(path=Path(found.origin)).symbols(self._kernel)
            if any(f"\t{symbol}\t" in file.read_text(errors="replace") for file in files):
                both = process.printable([found.origin, str(self._module.path)])
                return f"It is in {found.origin}: quizmatrix module build {both}"
        return NAME_ITS_FOLDER

    def _check_for_modules(self) -> None:
        """Raise UnpreparedError where kbuild succeeded without making a module."""
        order = self._copy / self._module.below / "modules.order"
        if order.is_file() and order.read_text().strip():
            return
        raise UnpreparedError(
            f"no module came of {self._module.path}",
            cause="its Kbuild names none in obj-m",
            next_step="Write `obj-m := NAME.o` there; if it says `obj-$(CONFIG_NAME)`: --make CONFIG_NAME=m",
        )

    async def _run(self, argv: Sequence[str], env: Mapping[str, str], shown: str = "") -> None:
        step = BuildStep(
            fact=f"{self._module.path} could not be built",
            folder=self._copy,
            log=self._log,
            env=env,
            pool=self._pool,
            shown=shown,
        )
        try:
            await step.run(argv)
        except (UnpreparedError, HostError) as error:
            # The error names the user's file instead of the copy; so it is also the same for all kernels.
            cause = dkms.with_own_paths(error.cause, self._copy, self._module.path)
            if match := _UNDEFINED.search(cause):
                where = self._where_it_is(match[1])
                raise NeedsOtherModuleError(error.fact, cause=cause, next_step=where) from error
            raise type(error)(error.fact, cause=cause, next_step=error.next_step) from error
