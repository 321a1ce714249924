"""Builds selftests of the kernel (tools/testing/selftests) for kernels that were built here.

What is built for a kernel is in all its guests, in /opt/kselftest. A kernel's targets are built together, so
that they are all in the list that run_kselftest.sh reads.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import anyio

from quizmatrix.build import output, parts
from quizmatrix.build.parts import Built, Done, Installed, PartResult, Parts
from quizmatrix.build.zfs import sysroot
from quizmatrix.build.zfs.sysroot import Sysroot
from quizmatrix.core import elf, paths, process
from quizmatrix.core.buildstep import BuildStep, first_error
from quizmatrix.core.errors import QuizmatrixError, UnpreparedError, UsageError, host_error
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store, key_of
from quizmatrix.core.version import leading_version
from quizmatrix.kernel import buildlayer, external, source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.buildtree import BuildTree
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell, debian_suite
from quizmatrix.model.options import RunOptions
from quizmatrix.prepare.preparer import Policy, Preparer

# The command that runs them in a guest.
COMMAND = "kselftest"

STORE = Store(
    what="kselftest",
    folder="kselftest",
    place="layers/{}",
    reference="{}/quizmatrix.installed",
    lock="kselftest-{}",
    stays=parts.STAYS,
)

# Where the tests are in the source, and the folder of it that has to be copied for them.
_TESTS = "tools/testing/selftests"
_COPIED = "tools"
# Part of every state; has to be changed when the same tests are built or installed differently.
_RECIPE = "1"
# A target is a folder of _TESTS, as in TARGETS of its Makefile: `timers`, `net/mptcp`.
_TARGET = re.compile(r"[\w+-][\w.+-]*(?:/[\w+-][\w.+-]*)*")
_OPERATORS = re.compile(r"[&|;<>()]+")
_REDIRECTION = re.compile(r"[<>]+[&|]?|&>+")
# In the place of a redirection among the words of a command.
_NO_WORD = "\0"


def bring_up_to_date(
    options: RunOptions, cells: Sequence[Cell], targets: list[str], seconds: float | None
) -> dict[str, QuizmatrixError]:
    """Build the targets for the kernels of the cells, and print progress; returns the errors by cell id.

    seconds: the time limit; after it there are no errors.
    """
    tell = output.progress_printer(quiet=options.results.quiet)
    preparer = Preparer(Policy.asked(options.conduct, boots_here=options.hosts.on is None))
    errors: dict[str, QuizmatrixError] = {}

    async def main() -> None:
        pool = JobServer(process.usable_cpus())
        sweep = _Sweep(targets, preparer, pool)
        try:
            with anyio.move_on_after(seconds):
                results = await parts.for_each_cell(
                    cells, lambda cell: sweep.cell(cell, lambda said: tell(cell.id, said))
                )
                errors.update(
                    (cell.id, result.error)
                    for cell, result in zip(cells, results, strict=True)
                    if result.error is not None
                )
        finally:
            pool.close()

    anyio.run(main)
    return errors


def targets_of(command: Sequence[str]) -> list[str]:
    """The targets that `kselftest` gets in a command, as TARGET or TARGET:TEST; none where it is not run.

    Raises UsageError where a word of it is no target.
    """
    lines = [_words(line) for line in command[0].splitlines()] if len(command) == 1 else [list(command)]
    named: set[str] = set()
    for words in lines:
        simple: list[str] = []
        for word in [*words, ";"]:
            if not _OPERATORS.fullmatch(word):
                simple.append(word)
                continue
            if simple and simple[-1].isdecimal() and {"<", ">"} & {*word}:
                simple.pop()  # 2>&1
            if _REDIRECTION.fullmatch(word):
                simple.append(_NO_WORD)  # before what it is from or to
                continue
            named |= _targets_of_one(simple)
            simple = []
    return sorted(named)


def _words(line: str) -> list[str]:
    """The words and operators of a shell's line; none where it is unfinished."""
    try:
        return list(elf.shell_words(line))
    except ValueError:  # a missing closing quote
        return []


def _targets_of_one(words: Sequence[str]) -> set[str]:
    """The targets of a command without operators."""
    words = list(itertools.dropwhile(elf.ASSIGNMENT.match, words))
    if words[:1] != [COMMAND]:
        return set()
    named = set()
    for before, word in itertools.pairwise(words):
        if _NO_WORD in (before, word) or word.startswith("-"):
            continue
        target = word.partition(":")[0]
        if not _TARGET.fullmatch(target):
            raise UsageError(f"`{word}` is no target of kselftest", next_step="`timers` is one.")
        named.add(target)
    return named


class _Sweep:
    """Builds the same targets for many cells, once for each kernel and C library."""

    def __init__(self, targets: list[str], preparer: Preparer, pool: JobServer) -> None:
        self._targets = targets
        self._preparer = preparer
        self._pool = pool
        self._parts = Parts(pool.cpus)

    async def cell(self, cell: Cell, tell: Tell) -> PartResult:
        arch = load_arch(cell.arch)
        try:
            _check_cell(cell)
            sysroot.require_tools(arch)
            process.require_program("rsync", "rsync")
            kernel = await self._preparer.kernel(cell, tell, pool=self._pool)
            suite = debian_suite(cell.image) or None
            async with self._parts.lock(f"sysroot {arch.name}"):
                libraries = await sysroot.obtain(
                    arch, suite, self._pool, tell, is_offline=self._preparer.is_offline
                )
        except QuizmatrixError as error:
            return PartResult(done=Done.FAILED, error=error)
        build = _Build(kernel, libraries, self._pool, tell)
        result = await self._parts.once(build.part, lambda: build.take(self._targets))
        return result if result.error else await parts.join_layers(kernel, cell, result, tell)


def _check_cell(cell: Cell) -> None:
    """Raise UnpreparedError where there can be no selftests in a cell."""
    if debian_suite(cell.image) is None:
        raise UnpreparedError(
            f"kselftest does not run in the image {cell.image}",
            cause="its programs need a C library",
            next_step="--image debian",
        )
    if not source.source_named(source.parse_spec(cell.kernel_spec).source).is_built:
        series = leading_version(cell.kernel.rpartition(":")[2])
        raise UnpreparedError(
            f"there is no source of {cell.kernel_spec} to build kselftest from",
            cause="the kernel comes ready-made",
            next_step=f"Name one that is built here: debian-source:{series.series if series else '6.12'}",
        )


class _Build:
    """The selftests of one kernel, for guests with one C library."""

    def __init__(self, kernel: Kernel, libraries: Sysroot, pool: JobServer, tell: Tell) -> None:
        self._kernel = kernel
        self._libraries = libraries
        self._pool = pool
        self._tell = tell
        self.part = f"{kernel.record.key}-{libraries.suite}"
        self._work = STORE.root / self.part

    async def take(self, targets: list[str]) -> Built:
        """Build the targets, and those that were built for the kernel before."""
        try:
            async with STORE.locked(self.part, lambda: self._tell("waiting for another build of the same")):
                return await self._take(targets)
        except OSError as error:
            raise host_error(f"build kselftest for {self._kernel.record.release}", error) from error

    async def _take(self, targets: list[str]) -> Built:
        installed = Installed(part=self.part, store=STORE)
        wanted = sorted({*targets, *self._built_before()})
        state = key_of([_RECIPE, self.part, *wanted])
        layer = installed.layer(state)
        is_new = not installed.is_current(state)
        tree = external.require_build_tree(self._kernel)
        if is_new:
            self._check_targets(targets, tree)
            self._tell(f"compiling selftests: {', '.join(wanted)}")
            with paths.new_dir(layer) as made:
                await self._make(wanted, tree, made / "opt/kselftest")
                self._check_installed(targets, made / "opt/kselftest")
            installed.replace(state)
            paths.write_atomic(self._work / "targets", "\n".join(wanted).encode())
        # Also where nothing is built: the guests may have had those of another C library.
        buildlayer.write_reference(
            self._kernel.record.key,
            buildlayer.LayerReference(
                name=buildlayer.SELFTESTS, origin=str(tree.source / _TESTS), layers=[str(layer)]
            ),
        )
        return Built(layer=layer, was_reused=not is_new)

    def _built_before(self) -> list[str]:
        try:
            return (self._work / "targets").read_text().split()
        except OSError:
            return []

    def _check_targets(self, targets: list[str], tree: BuildTree) -> None:
        for target in targets:
            if not (tree.source / _TESTS / target / "Makefile").is_file():
                raise UnpreparedError(
                    f"the kernel {self._kernel.record.version} has no selftests `{target}`",
                    next_step=f"ls {tree.source / _TESTS}",
                )

    async def _make(self, targets: list[str], tree: BuildTree, into: Path) -> None:
        """Compile the targets, and install them."""
        headers = self._work / "headers"
        headers.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        step = BuildStep(
            fact=f"kselftest could not be built for {self._kernel.record.release}",
            folder=self._work,
            log=self._log,
            pool=self._pool,
            env=self._libraries.environment | tree.environment,
        )
        words = [word for word in tree.make if not word.startswith("CC=")]
        words.append(f"CC={self._libraries.compiler}")
        await step.run(["make", "-C", str(tree.source), f"O={headers}", *words, "headers"])
        copy = await self._copy(tree.source, step)
        # The kernel's makefiles leave out `bpf` by themselves.
        words += [f"TARGETS={' '.join(targets)}", "SKIP_TARGETS=", f"O={self._work}", f"INSTALL_PATH={into}"]
        words += [f"KHDR_INCLUDES=-isystem {headers}/usr/include", "KSFT_KHDR_INSTALL_DONE=1"]
        # -i: what does not compile is not installed, and then a test that fails ("file ... is missing").
        await step.run(["make", "-i", "-C", str(copy / _TESTS), *words, "install"])

    async def _copy(self, tree: Path, step: BuildStep) -> Path:
        """A copy of the source: some targets write into their folder, for one kernel or architecture."""
        copy = self._work / "source"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in tree.iterdir():
            if path.name != _COPIED and not path.name.startswith(".git"):
                (copy / path.name).symlink_to(path)
        await step.run(["cp", "-a", str(tree / _COPIED), str(copy)])
        return copy

    def _check_installed(self, targets: list[str], folder: Path) -> None:
        """Raise UnpreparedError where no program of a target was compiled."""
        try:
            listed = (folder / "kselftest-list.txt").read_text().split()
        except FileNotFoundError:
            listed = []
        for target in targets:
            names = [name.partition(":")[2] for name in listed if name.startswith(f"{target}:")]
            if not any((folder / target / name).is_file() for name in names):
                raise UnpreparedError(
                    f"nothing was built of the selftests `{target}`",
                    cause=first_error(self._log.read_text(errors="replace")),
                    next_step=f"The whole log: {self._log}",
                )

    @property
    def _log(self) -> Path:
        return self._work / "log"


def forget(key: str) -> None:
    """Remove all that was built for a kernel."""
    for path in (*STORE.root.glob(f"{key}-*"), *STORE.root.glob(f"layers/{key}-*")):
        shutil.rmtree(path, ignore_errors=True)
