"""Builds one module of the user's for one kernel, and installs it for that kernel's guests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from quizmatrix.build.module import mirror
from quizmatrix.build.parts import STAYS, Built, Installed
from quizmatrix.core import paths, process, uses
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import HostError, UnpreparedError, UsageError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store, key_of
from quizmatrix.kernel import buildlayer, external
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.tree import read_version

# Part of every key; has to be changed when the same inputs are built differently.
_RECIPE = "1"

_FOLDER = "modules"

# The files of which kbuild reads the first that exists.
_KBUILD = ("Kbuild", "Makefile")

# The file in which kbuild lists a module's exported symbols, and the variable that names those of other
# modules.
_SYMBOLS = "Module.symvers"
_OTHERS_SYMBOLS = "KBUILD_EXTRA_SYMBOLS"
_UNDEFINED = re.compile(r'modpost: "([^"]+)" \[.*\] undefined!')

# Variables that quizmatrix sets for make(1), so that the user must not.
_OURS = frozenset(
    {"ARCH", "CROSS_COMPILE", "CC", "M", "O", "MO", "INSTALL_MOD_PATH", "INSTALL_MOD_DIR", "DEPMOD"}
)


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """The source folder of a module, or of several. It is never written to."""

    path: Path

    @property
    def mark(self) -> str:
        """The module's name in the cache, and among the references of a kernel."""
        return paths.cache_name(self.path)

    @property
    def work(self) -> Path:
        """The folder where it is built; each kernel has its own folder there."""
        return store_of(self.mark).root

    def symbols(self, kernel: Kernel) -> Path:
        """The file with its exported symbols; it exists after a build for the kernel."""
        return self.work / kernel.record.key / _SYMBOLS


class ModuleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a build differs from the default. make: variables for make(1), as NAME=VALUE."""

    make: tuple[str, ...] = ()


def modules_dir() -> Path:
    """The folder where modules are built."""
    return paths.cache_dir() / _FOLDER


def store_of(mark: str) -> Store:
    """The store of a module's installed layers. mark: see Module.mark."""
    return Store(
        what="module",
        folder=f"{_FOLDER}/{mark}",
        place="layers/{}",
        reference="{}.installed",
        lock=f"module-{mark}-{{}}",
        stays=STAYS,
    )


def find_module(asked: str) -> Module:
    """The module in the folder `asked`. Raises UsageError where there is none."""
    path = Path(asked).resolve()
    if not path.is_dir():
        raise UsageError(
            f"there is no folder {asked}", next_step="quizmatrix module build DIR --only 6.1-s390x"
        )
    if not any((path / name).is_file() for name in _KBUILD):
        raise UsageError(
            f"{path} holds no kernel module",
            cause=f"there is neither a {' nor a '.join(_KBUILD)} in it",
            next_step=f"echo 'obj-m := NAME.o' >{process.printable([str(path / _KBUILD[0])])}"
            " builds NAME.c there.",
        )
    try:
        version = read_version(path)
    except ValueError:
        version = None
    if version is not None:
        raise UsageError(
            f"{path} is a whole kernel, {version.text}, and no module",
            next_step=f"quizmatrix kernel build path:{process.printable([str(path)])}",
        )
    if paths.cache_dir().is_relative_to(path):
        raise UsageError(
            f"{path} cannot be built as a module",
            cause=f"the cache, to which it would be copied, is inside it: {paths.cache_dir()}",
            next_step="Name the module's own folder, or another cache with QUIZMATRIX_CACHE_DIR.",
        )
    return Module(path=path)


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
    so that their symbols may be used.
    """

    neighbours: tuple[Module, ...] = ()
    built: tuple[Module, ...] = ()


NO_OTHERS = OtherModules()


class UndefinedSymbolError(UnpreparedError):
    """A module uses a symbol that neither the kernel nor a module built with it exports."""


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

    Raises UndefinedSymbolError where neither the kernel nor a module in `other_modules` exports a symbol that
    it needs, UnpreparedError with the compiler's first error or where the kernel has no build tree, HostError
    where a tool is missing or the disk is full.
    """
    work = _ModuleBuild(module, kernel, options, pool, tell, other_modules)
    store = store_of(module.mark)
    async with store.locked(kernel.record.key, lambda: tell("waiting for another build of the same")):
        try:
            built = await work.take()
            _refer(module, kernel, built, tell)
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
    buildlayer.write_reference(
        key, buildlayer.LayerReference(name=module.mark, origin=str(module.path), layers=[str(built.layer)])
    )


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
        self._copy = module.work / key
        self._log = module.work / f"{key}.log"
        self._installed = Installed(part=key, store=store_of(module.mark))

    async def take(self) -> Built:
        files = mirror.scan(self._module.path)
        made_of = [_RECIPE, self._kernel.record.key, *self._options.make, mirror.name_of(files)]
        made_of += [mirror.name_of(mirror.scan(other.path)) for other in self._other_modules.neighbours]
        made_of += [other.mark for other in self._other_modules.built]
        state = key_of(made_of)
        layer = self._installed.layer(state)
        if self._installed.is_current(state):
            return Built(layer=layer, was_reused=True)
        tree = external.require_build_tree(self._kernel)
        given = external.variables(self._kernel)
        process.require_program("make", "make")
        make = ["make", "-C", str(tree), *self._kernel.record.make, *self._make_words(), f"M={self._copy}"]
        process.require_program(given.get("CC") or "gcc", "gcc")
        mirror.follow(self._module.path, files, self._copy)
        self._show_neighbours()
        self._log.unlink(missing_ok=True)
        self._tell(f"compiling {self._module.path.name}")
        await self._run([*make, "modules"])
        self._check_for_modules()
        with paths.new_dir(layer) as made:
            # Without depmod: one index is made later, for all modules of a guest together.
            into = [f"INSTALL_MOD_PATH={made / 'usr'}", "INSTALL_MOD_DIR=updates", "DEPMOD=true"]
            await self._run([*make, *into, "INSTALL_MOD_STRIP=1", "modules_install"])
            buildlayer.check(self._kernel, made)
        self._installed.replace(state)
        return Built(layer=layer)

    def _make_words(self) -> list[str]:
        """The user's variables for make(1), and the one that names the symbols of other modules."""
        exported = [str(other.symbols(self._kernel)) for other in self._other_modules.built]
        words = []
        for word in self._options.make:
            name, _, value = word.partition("=")
            if name == _OTHERS_SYMBOLS:
                exported.insert(0, value)
            else:
                words.append(word)
        return [*words, f"{_OTHERS_SYMBOLS}={' '.join(exported)}"] if exported else words

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
            try:
                symbols = Module(path=Path(found.origin)).symbols(self._kernel).read_text(errors="replace")
            except OSError:
                continue
            if f"\t{symbol}\t" in symbols:
                both = process.printable([found.origin, str(self._module.path)])
                return f"It is in {found.origin}: quizmatrix module build {both}"
        return "Name the folder of the module that exports it, too: quizmatrix module build DIR DIR"

    def _check_for_modules(self) -> None:
        """Raise UnpreparedError where kbuild succeeded without making a module."""
        order = self._copy / "modules.order"
        if order.is_file() and order.read_text().strip():
            return
        raise UnpreparedError(
            f"no module came of {self._module.path}",
            cause="its Kbuild names none in obj-m",
            next_step="Write `obj-m := NAME.o` there; if it says `obj-$(CONFIG_NAME)`: --make CONFIG_NAME=m",
        )

    async def _run(self, argv: list[str]) -> None:
        step = BuildStep(
            fact=f"{self._module.path} could not be built",
            folder=self._copy,
            log=self._log,
            pool=self._pool,
        )
        try:
            await step.run(argv)
        except (UnpreparedError, HostError) as error:
            # The error names the user's file instead of the copy; so it is also the same for all kernels.
            cause = error.cause.replace(str(self._copy), str(self._module.path))
            if match := _UNDEFINED.search(cause):
                where = self._where_it_is(match[1])
                raise UndefinedSymbolError(error.fact, cause=cause, next_step=where) from error
            raise type(error)(error.fact, cause=cause, next_step=error.next_step) from error
