"""Builds one part of OpenZFS out of tree: the programs of an architecture, or the modules of a kernel.

Each part has its own folder in the cache, where it is configured, compiled and installed. A step is skipped
if its inputs have not changed. The installed files appear all at once, as a layer that never changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from quizmatrix.build.parts import Built, Installed
from quizmatrix.build.zfs import answers, equal, precompiled, runtime
from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.part import ZfsPart
from quizmatrix.build.zfs.state import arguments_of, configuration_of, environment_of, state_of
from quizmatrix.build.zfs.tree import ZfsTree, zfs_dir
from quizmatrix.build.zfs.unchanged import Snapshot, make_older
from quizmatrix.core import paths
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import UnpreparedError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion, leading_version

# The variable for the number of compilers that ./configure starts at a time; it depends on how many builds
# run.
_TEST_JOBS = "TEST_JOBS"

CONFIGURE, MAKE, INSTALL = STEPS = ("configure", "make", "install")

_SOURCES = frozenset({".c", ".h", ".S"})


def check_kernel(tree: ZfsTree, kernel: str, options: ZfsOptions) -> None:
    """Raise UnpreparedError where the kernel is newer than META's Linux-Maximum, or older than its minimum.

    kernel: its version, or its name in a matrix; a name without a version is not checked.
    """
    version = leading_version(kernel.rpartition(":")[2])
    newest, oldest = tree.newest_kernel, tree.oldest_kernel
    if version is None:
        return
    if oldest is not None and KernelVersion(version.series) < oldest:
        raise UnpreparedError(
            f"OpenZFS {tree.version} is not for kernel {version.text} any more",
            cause=f"META's Linux-Minimum is {oldest.text}",
        )
    if newest is not None and not options.experimental and KernelVersion(version.series) > newest:
        raise UnpreparedError(
            f"OpenZFS {tree.version} does not know kernel {version.text}",
            cause=f"META's Linux-Maximum is {newest.text}",
            next_step="--experimental builds it anyway.",
        )


def is_known(tree: ZfsTree, kernel: str, options: ZfsOptions) -> bool:
    """Whether `check_kernel` finds nothing."""
    try:
        check_kernel(tree, kernel, options)
    except UnpreparedError:
        return False
    return True


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


def is_new(part: ZfsPart) -> bool:
    """Whether the part has to be configured and compiled from the beginning."""
    return _ZfsBuild(part, None, lambda _said: None).is_new


def installed(part: ZfsPart) -> Built | None:
    """What is installed, if it is up to date with the tree; else None."""
    return _ZfsBuild(part, None, lambda _said: None).installed()


def _is_configured(part: ZfsPart, mark: Path) -> bool:
    """Whether a part is configured for what ./configure depends on now. mark: the file that says for what."""
    return mark.exists() and mark.read_text() == configuration_of(part)


class _ZfsBuild:
    """One build of a part."""

    def __init__(self, part: ZfsPart, pool: JobServer | None, tell: Tell) -> None:
        self._part = part
        self._pool = pool
        self._tell = tell
        self._configured = part.folder / "quizmatrix.configured"
        self._installed = Installed(part=part.name, store=part.tree.store)

    async def take(self, steps: Sequence[str]) -> Built | None:
        if INSTALL in steps and (built := self.installed()) is not None:
            return built
        before = Snapshot(self._part.tree, without=self._part.without)
        state = state_of(self._part)
        if tuple(steps) == STEPS and (built := await self._taken_over(state)) is not None:
            return built
        try:
            return await self._do(steps, state, before)
        except UnpreparedError:
            # A half of each of two states does not compile.
            self._check_unchanged(before)
            raise
        except BaseException:
            # What was compiled of another state than the one that is there now is not up to date.
            if before.change() is not None:
                make_older(self._part.folder, before.began)
            raise

    async def _do(self, steps: Sequence[str], state: str, before: Snapshot) -> Built | None:
        part = self._part
        part.folder.mkdir(parents=True, exist_ok=True)
        if CONFIGURE in steps:
            await self._configure()
        elif not _is_configured(part, self._configured):
            how = "as is asked for now" if self._configured.exists() else "yet"
            raise UnpreparedError(
                f"{part.name} is not configured {how}",
                next_step="quizmatrix zfs configure, then make, then install; or `zfs build` for all three.",
            )
        # What is installed has to be what the tree is now.
        if MAKE in steps or INSTALL in steps:
            self._tell("compiling")
            if part.linked:
                _link_sources(part.tree.path / part.linked, part.folder / part.linked)
            for words in part.make:
                await self._make(words)
        if INSTALL in steps:
            return await self._install(state, before)
        self._check_unchanged(before)
        return None

    def _check_unchanged(self, before: Snapshot) -> None:
        """Raise UnpreparedError where the tree changed. The next build compiles again what it has to."""
        if (change := before.change()) is not None:
            make_older(self._part.folder, before.began)
            raise change

    @property
    def is_new(self) -> bool:
        """Whether it has to be configured and compiled from the beginning."""
        return not self._is_begun and equal.find(self._part) is None

    @property
    def _is_begun(self) -> bool:
        """Whether something of it is compiled for what ./configure depends on now."""
        return _is_configured(self._part, self._configured) and self._installed.is_begun

    async def _taken_over(self, state: str) -> Built | None:
        """What was built of another tree with the same content, as this tree's own."""
        if self._is_begun:
            return None
        layer = await in_thread(partial(equal.find, self._part))
        if layer is None:
            return None
        built = self._built(state)
        try:
            if built.runtime is not None:
                equal.copy(runtime_of(layer), built.runtime)
            equal.copy(layer, built.layer)
        except OSError:
            return None  # the other tree was built again just now
        self._installed.replace(state)
        return msgspec.structs.replace(built, was_reused=True)

    def installed(self) -> Built | None:
        """What is installed, if it is up to date with the tree; else None."""
        state = state_of(self._part)
        if not self._installed.is_current(state):
            return None
        return msgspec.structs.replace(self._built(state), was_reused=True)

    def _built(self, state: str) -> Built:
        layer = self._installed.layer(state)
        return Built(layer=layer, runtime=runtime_of(layer) if self._part.has_programs else None)

    async def _configure(self) -> None:
        """Run ./configure, with the answers of an earlier build of the same configuration, if any."""
        part = self._part
        wanted = configuration_of(self._part)
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
        argv = [str(part.tree.path / "configure"), f"--cache-file={own}", *arguments_of(self._part)]
        async with self._needed_pool.token():
            varying = {_TEST_JOBS: str(self._needed_pool.share)}
            if shared:
                own.write_bytes(answers.for_one_build(shared, varying))
            try:
                asked = part.sysroot.programs if part.has_programs else precompiled.environment(part)
                await self._step(env={**varying, **asked}).run(argv)
            finally:
                shutil.rmtree(precompiled.headers_dir(part), ignore_errors=True)
        return own.read_bytes() if own.exists() else b""

    async def _install(self, state: str, before: Snapshot) -> Built:
        part = self._part
        self._tell("installing")
        built = self._built(state)
        with paths.new_dir(built.layer) as made:
            for words in part.install:
                await self._make([word.format(layer=made) for word in words])
            _merge_usr(made)
            if part.has_programs:
                _add_python_library(part.tree.path, made)
            self._check_unchanged(before)
            if built.runtime is not None:
                with paths.new_dir(built.runtime) as libraries:
                    await in_thread(partial(runtime.gather, made, part.sysroot, libraries))
        self._installed.replace(state)
        return built

    @property
    def _needed_pool(self) -> JobServer:
        if self._pool is None:
            raise AssertionError("a part is only looked at")
        return self._pool

    async def _make(self, words: list[str]) -> None:
        await self._step(env=self._part.making, pool=self._needed_pool).run(["make", *words])

    def _step(self, *, env: Mapping[str, str] = {}, pool: JobServer | None = None) -> BuildStep:
        return BuildStep(
            fact=f"{self._part.name} could not be built",
            folder=self._part.folder,
            log=self._part.log,
            env={**environment_of(self._part), **env},
            pool=pool,
        )


def _add_python_library(tree: Path, layer: Path) -> None:
    """Put libzfs_core for Python into a layer; ./configure would ask this host's Python for cffi first."""
    library = tree / "contrib/pyzfs/libzfs_core"
    if library.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.in")
        shutil.copytree(library, layer / "usr/lib/python3/dist-packages/libzfs_core", ignore=ignored)


def runtime_of(layer: Path) -> Path:
    """The folder with the libraries of a layer with programs."""
    return layer.with_name(f"{layer.name}.runtime")


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
