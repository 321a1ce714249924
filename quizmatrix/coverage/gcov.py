"""What gcov(1) writes of single object files, joined to one report of a guest.

The format is that of `gcov --json-format` (GCC's manual, "Invoking gcov"). gcovr reads its second version, of
GCC 14; the first, of GCC 9 to 13, lacks only what is not used here. Branches are left out: each compiler and
each architecture makes other ones of a line. So are the functions that a line belongs to: a macro may make
several of one line.
"""

from __future__ import annotations

import filecmp
import gzip
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quizmatrix.coverage.sources import SourcePlaces, copy_in, tree_of

# What gcov adds to the name of an object file.
SUFFIX = ".gcov.json.gz"
# The compiler's notes of an object file.
NOTES = ".gcno"


class GcovLine(msgspec.Struct, kw_only=True):
    """How often a line ran."""

    line_number: int
    count: int
    block_ids: list[int] = []
    branches: list[msgspec.Raw] = []


class GcovFunction(msgspec.Struct, kw_only=True):
    """Where a function is, and how often it was called. blocks: of code without a branch in it."""

    name: str
    demangled_name: str
    start_line: int
    start_column: int
    end_line: int
    end_column: int
    blocks: int
    blocks_executed: int
    execution_count: int


class GcovFile(msgspec.Struct, kw_only=True):
    """The lines of one source file. file: its path, which may be relative to the compiler's folder."""

    file: str
    lines: list[GcovLine]
    functions: list[GcovFunction]


class GcovReport(msgspec.Struct, kw_only=True):
    """One report."""

    files: list[GcovFile]
    current_working_directory: str
    format_version: str = "2"


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Source files that a joined report lacks, by their paths.

    changed: those that are not any more what was compiled, or that another guest has with another text.
    unknown: those of no tree.
    """

    changed: list[str]
    unknown: list[str]


class CountedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A source file in one guest.

    lines: those with code, and whether each ran. heads: the first lines of functions.
    """

    lines: dict[int, bool]
    heads: frozenset[int] = frozenset()


def read(file: Path) -> Iterator[tuple[str, CountedFile]]:
    """The files in a joined report, with their names."""
    report = msgspec.json.decode(gzip.decompress(file.read_bytes()), type=GcovReport)
    for one in report.files:
        lines = {line.line_number: line.count > 0 for line in one.lines}
        yield one.file, CountedFile(lines=lines, heads=frozenset(head.start_line for head in one.functions))


def join(folder: Path, target: Path, sources: Path, places: SourcePlaces) -> LeftOut:
    """Join the reports in a folder, which has the notes, too, to one: the counts of a line are added up.

    sources: where the source files are copied to, by their names, which the report has in place of paths.
    Raises OSError where a report cannot be read.
    """
    joined: dict[Path, _Joined] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        compiled = path.with_name(path.name.removesuffix(SUFFIX) + NOTES).stat().st_mtime
        try:
            report = msgspec.json.decode(gzip.decompress(path.read_bytes()), type=GcovReport)
        except (EOFError, msgspec.MsgspecError) as error:
            raise OSError(0, f"gcov wrote what cannot be read: {error}", str(path)) from error
        for one in report.files:
            if one.lines:
                real = places.on_host(str(Path(report.current_working_directory, one.file))).resolve()
                joined.setdefault(real, _Joined()).add(one, compiled)
    files, changed, unknown = [], [], []
    for real, whole in sorted(joined.items()):
        name = places.name_of(real)
        if name is None:
            unknown.append(str(real))
        elif not tree_of(name) or not (original := places.original(name)).exists():
            continue  # it does not count, or a build has made it
        elif _is_as_compiled(real, original, whole.compiled) and copy_in(name, real, sources):
            functions = list(whole.functions.values())
            files.append(GcovFile(file=name, lines=whole.lines, functions=functions))
        else:
            changed.append(str(original))
    made = GcovReport(files=files, current_working_directory=str(sources))
    target.write_bytes(gzip.compress(msgspec.json.encode(made), 1))
    return LeftOut(changed=changed, unknown=unknown)


def _is_as_compiled(real: Path, original: Path, compiled: float) -> bool:
    """Whether a source file is what was compiled. real: where it was read. compiled: when, as an mtime."""
    try:
        is_same = real == original.resolve() or filecmp.cmp(real, original, shallow=False)
        return is_same and real.stat().st_mtime <= compiled
    except FileNotFoundError:
        return False


class _Joined:
    """One source file, of all object files that have code of it. compiled: the first one's mtime."""

    def __init__(self) -> None:
        self.compiled = float("inf")
        self.functions: dict[tuple[str, int], GcovFunction] = {}
        self._counts: dict[int, int] = {}

    @property
    def lines(self) -> list[GcovLine]:
        return [GcovLine(line_number=number, count=count) for number, count in sorted(self._counts.items())]

    def add(self, file: GcovFile, compiled: float) -> None:
        self.compiled = min(self.compiled, compiled)
        for line in file.lines:
            # A counter that two CPUs change at a time may be wrong, even below zero.
            self._counts[line.line_number] = self._counts.get(line.line_number, 0) + max(0, line.count)
        for function in file.functions:
            function.execution_count = max(0, function.execution_count)
            known = self.functions.setdefault((function.name, function.start_line), function)
            if known is not function:
                known.execution_count += function.execution_count
                known.blocks_executed = max(known.blocks_executed, function.blocks_executed)
                known.blocks = max(known.blocks, function.blocks)
