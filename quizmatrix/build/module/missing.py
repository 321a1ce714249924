"""Reads what a failed build of a module missed, and says which kernel has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path

from quizmatrix.build.module.module import NAME_ITS_FOLDER, Module
from quizmatrix.core import objectfile, untrusted
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import HostError, QuizmatrixError, UnpreparedError
from quizmatrix.core.process import Tell
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel import source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.debianversions import is_exact
from quizmatrix.kernel.missing import sourcetree
from quizmatrix.kernel.missing.explain import Explainer, Explanation, Kind, Missed, option_words
from quizmatrix.kernel.missing.expression import LEVELS, NO, Expression, Name
from quizmatrix.kernel.missing.switching import Configuration, plan, values_of
from quizmatrix.model import kconfig
from quizmatrix.model.arch import load_arch
from quizmatrix.model.archive import has_kernels_for
from quizmatrix.model.cells import Cell
from quizmatrix.model.kconfig import read_config

_WIDE = "wide"
# More than a person reads; a hostile log may name thousands.
_MAX_MISSED = 60
_MAX_OBJECTS = 500
# Bytes of an object file, and of all; the files of a whole OpenZFS have less. And how many names they have.
_LARGEST_OBJECT = 16 << 20
_MOST_BYTES = 128 << 20
_MOST_NAMES = 500_000

_QUOTE, _END = "['`‘]", "['’]"
_NAMED = rf"{_QUOTE}(\w+)(?:\(\))?{_END}"
_STRUCT = rf"{_QUOTE}(?:const )?struct (\w+)(?: \*)?{_END}"
# What modpost, gcc and clang print, and what they miss.
_PATTERNS = (
    (Kind.SYMBOL, re.compile(r'modpost: "(\w+)" \[[^\]]*\] undefined!')),
    (Kind.NAME, re.compile(rf"error: implicit declaration of function {_NAMED}")),
    (Kind.NAME, re.compile(rf"error: call to undeclared (?:library )?function {_NAMED}")),
    (Kind.NAME, re.compile(rf"error: {_NAMED} undeclared")),
    (Kind.NAME, re.compile(rf"error: use of undeclared identifier {_NAMED}")),
    (Kind.NAME, re.compile(rf"error: unknown type name {_NAMED}")),
    (
        Kind.STRUCT,
        re.compile(
            rf"error: (?:invalid use of undefined|dereferencing pointer to incomplete) type {_STRUCT}"
        ),
    ),
    (Kind.STRUCT, re.compile(rf"error: incomplete definition of type {_STRUCT}")),
    (Kind.HEADER, re.compile(r"fatal error: ([\w./+-]+\.h): No such file or directory")),
    (Kind.HEADER, re.compile(rf"fatal error: {_QUOTE}([\w./+-]+\.h){_END} file not found")),
)
# An option in the words of a dkms.conf, unless it must be off.
_OPTION = re.compile(r"(?<![!\w])CONFIG_(\w+)")
_MEMBER = re.compile(rf"error: {_STRUCT} has no member named {_NAMED}")
_MEMBER_CLANG = re.compile(rf"error: no member named {_NAMED} in {_STRUCT}")
_GPL = re.compile(rf"modpost: GPL-incompatible module (\S+) uses GPL-only symbol {_NAMED}")
_NAMESPACE = re.compile(
    r"modpost: module (\S+) uses symbol (\w+) from namespace ([\w-]+), but does not import"
)


def missed_in(output: str) -> list[Missed]:
    """What a build's output says is missing."""
    found = [Missed(kind=kind, name=name) for kind, pattern in _PATTERNS for name in pattern.findall(output)]
    found += [Missed(kind=Kind.MEMBER, name=name, struct=of) for of, name in _MEMBER.findall(output)]
    found += [Missed(kind=Kind.MEMBER, name=name, struct=of) for name, of in _MEMBER_CLANG.findall(output)]
    return list(dict.fromkeys(found))[:_MAX_MISSED]


def refused_in(output: str, version: KernelVersion) -> list[str]:
    """What modpost refuses though the kernel has it: for other licences, or from other namespaces."""
    steps = []
    for module, symbol in dict.fromkeys(_GPL.findall(output)):
        steps.append(
            f'{symbol} is exported to GPL modules only: MODULE_LICENSE("GPL") in {module}, where that is true'
        )
    for module, symbol, namespace in dict.fromkeys(_NAMESPACE.findall(output)):
        # Its argument is a string from 6.13 on.
        name = f'"{namespace}"' if version >= KernelVersion("6.13-rc1") else namespace
        steps.append(f"{symbol} is of a namespace: MODULE_IMPORT_NS({name}); in {module}")
    return steps


async def unresolved_in(folder: Path, kernel: Kernel) -> list[str]:
    """The symbols that objects in `folder` use, and that neither they nor the kernel have.

    modpost prints ten and no more, and does not come to print any where a file could not be compiled.
    """
    tree = kernel.build_tree
    if tree is None:
        return []
    used, defined = await in_thread(partial(_symbols_below, folder))
    exported = {line.split("\t")[1] for line in read_log(tree.folder / "Module.symvers").splitlines()}
    return sorted(name for name in used - defined - exported if re.fullmatch(r"\w+", name))


def _symbols_below(folder: Path) -> tuple[set[str], set[str]]:
    """The symbols that object files use, and those that they define."""
    used: set[str] = set()
    defined: set[str] = set()
    left = _MOST_BYTES
    for path in islice(untrusted.files_below(folder, ".o"), _MAX_OBJECTS):
        try:
            with untrusted.open_regular(path) as file:
                data = file.read(_LARGEST_OBJECT)
            left -= len(data)
            if left < 0 or len(used) + len(defined) > _MOST_NAMES:
                break
            with objectfile.parsed(data) as elf:
                for symbol in objectfile.global_symbols(elf):
                    name = symbol.name.decode(errors="replace")
                    if symbol.is_wanted:
                        used.add(name)
                    elif not symbol.is_undefined:
                        defined.add(name)
        except (OSError, ValueError):
            continue
    return used, defined


async def explained(
    error: QuizmatrixError,
    module: Module,
    kernel: Kernel,
    cell: Cell,
    tell: Tell,
    *,
    offline: bool,
) -> QuizmatrixError:
    """The error of a failed build, with a next step that says what the kernel lacks, where that is known.

    offline: fetch no source of the kernel.
    """
    output = read_log(module.log(kernel))
    version = KernelVersion(KernelVersion(kernel.record.version).series)
    steps = refused_in(output, version)
    missed = missed_in(output)
    if missed:
        try:
            explainer = await _explainer(kernel, tell, offline=offline)
            tell("looking for what it lacks in the kernel's source")
            explanation = await explainer.explain(missed, await unresolved_in(module.copy(kernel), kernel))
            steps += [*explanation.reasons, *_ways(explanation, explainer, kernel, cell)]
        except (UnpreparedError, HostError, OSError) as reason:
            steps.append(f"Which option has it is not known: {reason}")
        else:
            if error.next_step == NAME_ITS_FOLDER and explanation.strangers == 0:
                return type(error)(error.fact, cause=error.cause, next_step="\n  ".join(steps))
    steps += [error.next_step] if error.next_step else []
    return type(error)(error.fact, cause=error.cause, next_step="\n  ".join(steps))


async def way_to_options(why: str, kernel: Kernel, cell: Cell, tell: Tell, *, offline: bool) -> str:
    """How a kernel can be had with the options that a module asks for by itself; "" where that is not known.

    why: the reason for which the module is not for this kernel; it names the options.
    """
    config = read_config(kernel.config)
    asked = [name for name in dict.fromkeys(_OPTION.findall(why)) if name not in config]
    if not asked:
        return ""
    try:
        explainer = await _explainer(kernel, tell, offline=offline)
    except (UnpreparedError, HostError, OSError):
        return ""
    explanation = await in_thread(lambda: explainer.ways_to([Name(name) for name in asked]))
    return " ".join(_ways(explanation, explainer, kernel, cell))


async def _explainer(kernel: Kernel, tell: Tell, *, offline: bool) -> Explainer:
    found = await sourcetree.source_for(kernel, tell, offline=offline)
    return Explainer(found, read_config(kernel.config), kernel.record.version, kernel.record.arch)


def _ways(explanation: Explanation, explainer: Explainer, kernel: Kernel, cell: Cell) -> list[str]:
    """How a kernel with all that is missed can be had, as one sentence; none where it cannot."""
    if explanation.lines is None:
        return []
    is_built = kernel.record.build is not None
    spec = source.parse_spec(cell.kernel_spec)
    words = " ".join(option_words(explanation.lines))
    ways = []
    if is_built:
        ways.append(f"`{words}`, for `run` too")
        if _wide_has_it(explanation.conditions, explainer, kernel, cell):
            ways.append(f"the variant `{_WIDE}` (--only '{cell.id}+{_WIDE}')")
        if _debian_has_it(explanation.conditions, explainer, cell):
            ways.append(f"Debian's own kernel ({_chosen('debian', cell)})")
    elif cell.variant is None and spec.source == "debian":
        words = " ".join(option_words(_for_built(explanation, explainer, cell)))
        ways.append(f"a kernel that is built here: `{_chosen('debian-source', cell)} {words}`, for `run` too")
    return [f"{'Add' if is_built else 'Take'} {', or '.join(ways)}."] if ways else []


def _chosen(name: str, cell: Cell) -> str:
    """The words of a command line that take the cell's kernel from another source."""
    if ":" not in cell.kernel:
        return f"--source {name}"
    return f"--only {name}:{source.parse_spec(cell.kernel_spec).wanted}-{cell.arch}"


def _wide_has_it(conditions: Iterable[Expression], explainer: Explainer, kernel: Kernel, cell: Cell) -> bool:
    if cell.variant is not None:
        return False
    version = KernelVersion(kernel.record.version)
    wishes = kconfig.wishes_for(cell.arch, version, _WIDE, list(cell.config))
    lines = {wish.symbol: LEVELS[wish.value] for wish in wishes if wish.value in LEVELS}
    return _holds(conditions, explainer.now.with_lines(lines))


def _debian_has_it(conditions: Iterable[Expression], explainer: Explainer, cell: Cell) -> bool:
    """Whether Debian's ready-made kernel of the same series is in the cache, and has all of it."""
    wanted = source.parse_spec(cell.kernel_spec)
    debian = load_arch(cell.arch).facts.debian
    if cell.variant is not None or cell.config or debian is None:
        return False
    if is_exact(wanted.wanted) or not has_kernels_for(debian.arch, wanted.wanted):
        return False
    ready = _stored(f"debian:{wanted.wanted}", cell)
    if ready is None:
        return False
    return _holds(conditions, Configuration(explainer.tree, values_of(read_config(ready.config))))


def _for_built(explanation: Explanation, explainer: Explainer, cell: Cell) -> dict[str, int]:
    """The lines that the small configuration needs, where a kernel with it is in the cache."""
    small = _stored(f"debian-source:{source.parse_spec(cell.kernel_spec).wanted}", cell)
    lines: dict[str, int] = {}
    if small is not None:
        made = now = Configuration(explainer.tree, values_of(read_config(small.config)))
        for condition in explanation.conditions:
            lines |= plan(made, condition, "") or {}
            made = now.with_lines(lines)
    return lines or dict(explanation.lines or {})


def _stored(spec: str, cell: Cell) -> Kernel | None:
    try:
        return source.find(spec, load_arch(cell.arch))
    except QuizmatrixError:
        return None


def _holds(conditions: Iterable[Expression], made: Configuration) -> bool:
    return all(made.value(condition) > NO for condition in conditions)


def read_log(path: Path) -> str:
    """The output of a build; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
