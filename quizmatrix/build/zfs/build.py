"""Builds one part of OpenZFS out of tree: the programs of an architecture, or the modules of a kernel.

Each part has its own folder in the cache, where it is configured, compiled and installed. A step is skipped
if its inputs have not changed. The installed files appear all at once, as a layer that never changes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from quizmatrix.build.parts import Built, Installed
from quizmatrix.build.zfs import answers, runtime
from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.part import ZfsPart
from quizmatrix.build.zfs.tree import ZfsTree, zfs_dir
from quizmatrix.core import checksum, paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import UnpreparedError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.core.store import key_of
from quizmatrix.core.version import KernelVersion, leading_version

# Part of every key; has to be changed when the same inputs are built differently.
_RECIPE = "2"

# The variable for the number of compilers that ./configure starts at a time; it depends on how many builds
# run.
_TEST_JOBS = "TEST_JOBS"

CONFIGURE, MAKE, INSTALL = STEPS = ("configure", "make", "install")

_SOURCES = frozenset({".c", ".h", ".S"})


def check_kernel(tree: ZfsTree, kernel: str, options: ZfsOptions) -> None:
    """Raise UnpreparedError where the kernel is newer than META's Linux-Maximum.

    kernel: its version, or its name in a matrix; a name without a version is not checked.
    """
    version = leading_version(kernel.rpartition(":")[2])
    newest = tree.newest_kernel
    if options.experimental or version is None or newest is None:
        return
    if KernelVersion(version.series) > newest:
        raise UnpreparedError(
            f"OpenZFS {tree.version} does not know kernel {version.text}",
            cause=f"META's Linux-Maximum is {newest.text}",
            next_step="--experimental builds it anyway.",
        )


async def build(part: ZfsPart, pool: JobServer, tell: Tell, steps: Sequence[str] = STEPS) -> Built | None:
    """Do those of `steps` that are necessary; returns what is installed, or None without the step `install`.

    Raises UnpreparedError with the compiler's first error, HostError where the disk is full.
    """
    work = _ZfsBuild(part, pool, tell)
    async with part.tree.store.locked(part.name, lambda: tell("waiting for another build of the same")):
        try:
            return await work.take(steps)
        except OSError as error:
            raise host_error(f"build {part.name}", error) from error


def installed(part: ZfsPart) -> Built | None:
    """What is installed, if it is up to date with the tree; else None."""
    return _ZfsBuild(part, None, lambda _said: None).installed()


class _ZfsBuild:
    """One build of a part."""

    def __init__(self, part: ZfsPart, pool: JobServer | None, tell: Tell) -> None:
        self._part = part
        self._pool = pool
        self._tell = tell
        self._configured = part.folder / "quizmatrix.configured"
        self._installed = Installed(part=part.name, store=part.tree.store)

    async def take(self, steps: Sequence[str]) -> Built | None:
        state = self._state()
        if INSTALL in steps and (built := self.installed(state)) is not None:
            return built
        part = self._part
        part.folder.mkdir(parents=True, exist_ok=True)
        if CONFIGURE in steps:
            await self._configure()
        elif not self._configured.exists():
            raise UnpreparedError(
                f"{part.name} is not configured yet",
                next_step="quizmatrix zfs configure, then make, then install; or `zfs build` for all three.",
            )
        if MAKE in steps:
            self._tell("compiling")
            if part.linked:
                _link_sources(part.tree.path / part.linked, part.folder / part.linked)
            for words in part.make:
                await self._make(words)
        return await self._install(state) if INSTALL in steps else None

    def installed(self, state: str | None = None) -> Built | None:
        state = state or self._state()
        if not self._installed.is_current(state):
            return None
        return msgspec.structs.replace(self._built(state), was_reused=True)

    def _built(self, state: str) -> Built:
        layer = self._installed.layer(state)
        runtime = layer.with_name(f"{layer.name}.runtime") if self._part.has_programs else None
        return Built(layer=layer, runtime=runtime)

    def _state(self) -> str:
        """A hash of everything that the installed files depend on."""
        of_tree = checksum.state_of(self._part.tree.path, without=self._part.without)
        return key_of([f"{self._configuration()} {of_tree}"])

    def _arguments(self) -> list[str]:
        triple = self._part.arch.facts.cross_prefix.removesuffix("-")
        # Always a cross build: in a native one, configure would run its test programs with this host's
        # libraries.
        host = [f"--host={triple}", f"--build={platform.machine()}-build-linux-gnu"]
        return [*host, *self._part.configure, *self._part.options.arguments]

    def _configuration(self) -> str:
        """A hash of all that ./configure depends on."""
        configure = hashlib.sha256((self._part.tree.path / "configure").read_bytes()).hexdigest()
        compiler = _identity(self._part.sysroot.compiler.split()[0])
        made = [
            _RECIPE,
            configure,
            *self._arguments(),
            repr(self._environment()),
            self._part.made_for,
            compiler,
        ]
        return key_of(made, 24)

    def _environment(self) -> dict[str, str]:
        symbols = " -g" if self._part.options.debug else ""
        own = {"CFLAGS": f"-O2{symbols}", "LDFLAGS": self._part.sysroot.linker}
        return own | self._part.sysroot.environment | self._part.environment

    async def _configure(self) -> None:
        """Run ./configure, with the answers of an earlier build of the same configuration, if any."""
        part = self._part
        wanted = self._configuration()
        if self._configured.exists() and self._configured.read_text() == wanted:
            return
        part.log.unlink(missing_ok=True)
        self._tell("configuring")
        known = zfs_dir() / "configured" / f"{wanted}.cache"
        shared = known.read_bytes() if known.exists() else b""
        try:
            found = await self._run_configure(shared)
        except UnpreparedError:
            if not shared:
                raise
            # The earlier answers may be wrong now: a program may be gone, or the file be incomplete.
            self._tell("configuring again, without what another build found")
            known.unlink(missing_ok=True)
            found = await self._run_configure(b"")
        if found:
            known.parent.mkdir(parents=True, exist_ok=True)
            paths.write_atomic(known, answers.shareable(found, [_TEST_JOBS]))
        self._configured.write_text(wanted)

    async def _run_configure(self, shared: bytes) -> bytes:
        """Run ./configure in an empty folder with the answers in `shared`; returns all answers."""
        part = self._part
        shutil.rmtree(part.folder)
        part.folder.mkdir()
        own = part.folder / "config.cache"
        argv = [str(part.tree.path / "configure"), f"--cache-file={own}", *self._arguments()]
        async with self._needed_pool.token():
            varying = {_TEST_JOBS: str(self._needed_pool.share)}
            if shared:
                own.write_bytes(answers.for_one_build(shared, varying))
            await self._step(env=varying).run(argv)
        return own.read_bytes() if own.exists() else b""

    async def _install(self, state: str) -> Built:
        part = self._part
        self._tell("installing")
        built = self._built(state)
        with paths.new_dir(built.layer) as made:
            for words in part.install:
                await self._make([word.format(layer=made) for word in words])
            _merge_usr(made)
            if built.runtime is not None:
                with paths.new_dir(built.runtime) as libraries:
                    await runtime.gather(made, part.sysroot, libraries)
        self._installed.replace(state)
        return built

    @property
    def _needed_pool(self) -> JobServer:
        if self._pool is None:
            raise AssertionError("a part is only looked at")
        return self._pool

    async def _make(self, words: list[str]) -> None:
        await self._step(pool=self._needed_pool).run(["make", *words])

    def _step(self, *, env: Mapping[str, str] = {}, pool: JobServer | None = None) -> BuildStep:
        return BuildStep(
            fact=f"{self._part.name} could not be built",
            folder=self._part.folder,
            log=self._part.log,
            env={**self._environment(), **env},
            pool=pool,
        )


def _identity(compiler: str) -> str:
    """A text that identifies the installed compiler, and changes with an upgrade."""
    path = process.find_program(compiler)
    if path is None:
        return compiler
    state = Path(path).resolve().stat()
    return f"{compiler} {state.st_size} {state.st_mtime_ns}"


def _link_sources(source: Path, target: Path) -> None:
    """Make symlinks below `target` to all sources below `source`, and remove broken ones."""
    for top, folders, names in os.walk(target):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            link = Path(top, name)
            if link.suffix in _SOURCES and link.is_symlink() and not link.exists():
                link.unlink()
    for path in source.rglob("*"):
        link = target / path.relative_to(source)
        if path.suffix in _SOURCES and path.is_file() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def _merge_usr(layer: Path) -> None:
    """Move /lib, /bin and /sbin of a layer below /usr: a folder there would hide the guest's symlink."""
    for name in ("lib", "bin", "sbin"):
        if (layer / name).is_dir():
            shutil.copytree(layer / name, layer / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(layer / name)
