"""Makes a trace of one guest: how often each line ran, by its counters and the compiler's notes.

Beside each object file that counts, the compiler leaves its notes, a .gcno file; the kernel has the counters,
a .gcda file of the same path (Documentation/dev-tools/gcov.rst). gcov(1) reads both. It is written in C and
reads what a guest wrote, so it runs in the sandbox.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from quizmatrix.core import offload, paths, process
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.json import decode_exactly, encode_exactly
from quizmatrix.core.sandbox import Sandbox
from quizmatrix.core.text import clean_line
from quizmatrix.coverage import gcov
from quizmatrix.coverage.gcov import NOTES, SUFFIX, CountedFile, LeftOut
from quizmatrix.coverage.sources import CountedTrees, SourcePlaces
from quizmatrix.kernel import artifact
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.arch import load_arch
from quizmatrix.run import counters

_COUNTERS = ".gcda"
# What guest/counters adds where it could not read all.
_INCOMPLETE = Path("/incomplete")
# Bytes of a guest's file, and of what is in it; and how many files that may be.
_MOST_BYTES = 256 << 20
_MOST_FILES = 100_000

# In the folder of all traces: the reports, and the sources by their names.
REPORTS, SOURCES = "reports", "sources"

# How many files gcov gets at a time, and seconds that it may take for them.
_AT_A_TIME = 400
_LIMIT = 600.0
# How many reasons a note names.
_MOST_REASONS = 3
# What gcov says of a file that it could not use, of which it tells zeros all the same.
_UNUSED = re.compile(
    r"^(\d+)\.(?:gcda|gcno):((?:stamp|profile|version|not a gcov|corrupted|overflowed|unknown|cannot).*)",
    re.MULTILINE,
)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of one guest's code ran.

    cell: without `@NofM`. files: by their names (see SourcePlaces). notes: what is missing, for the user.
    """

    cell: str
    files: dict[str, CountedFile]
    notes: list[str] = []


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a guest's file.

    found: how many counters with notes. without: how many without. is_incomplete: whether the guest could not
    read some.
    """

    found: int
    without: int
    is_incomplete: bool = False


async def read(folder: Path, cell: str, work: Path, trees: CountedTrees) -> Trace | None:
    """The trace of the guest whose folder this is; None where it kept no counters.

    work: a folder for the traces of one page: the guest's report is left in its REPORTS, copies of the
    sources in SOURCES. Raises UnpreparedError where the kernel is gone, DamagedError or OSError where the
    counters cannot be read, HostError where gcov or the sandbox is missing.
    """
    record = counters.load(folder)
    if record is None:
        return None
    kernel = artifact.load(record.kernel)
    if kernel is None:
        raise UnpreparedError("its kernel is gone from the cache, and with it what the compiler noted")
    program = process.require_program(*_gcov_of(kernel))
    places = trees.add(kernel)
    own = work / "-".join(folder.parts[-2:])
    own.mkdir()
    caches = [str(place.resolve()) for place in paths.cache_folders()]
    known = encode_exactly(places).decode()
    given = (str(folder / counters.COUNTERS), str(own), known, *caches)
    got: Unpacked = await offload.call(unpack, *given, returns=Unpacked)
    lost = await run_gcov(program, own, range(got.found))
    report = work / REPORTS / f"{own.name}{SUFFIX}"
    joining = (str(own), str(report), str(work / SOURCES), known)
    left_out: LeftOut = await offload.call(_join, *joining, returns=LeftOut)
    shutil.rmtree(own)
    unknown = [path for path in left_out.unknown if not any(Path(path).is_relative_to(one) for one in caches)]
    files = dict(gcov.read(report))
    notes = ["some counters could not be read in the guest"] if got.is_incomplete else []
    notes.append(_counted(got.without, "object files", "what the compiler noted of them is gone"))
    notes += [_counted(lost.count(why), "object files", why) for why in sorted(set(lost))[:_MOST_REASONS]]
    notes.append(_counted(len(left_out.changed), "source files", _changed(left_out.changed)))
    notes.append(
        _counted(len(unknown), "source files", f"of no tree that was built from: {''.join(unknown[:1])}")
    )
    notes += [] if files else ["no line was counted, as no module that counts was loaded"]
    return Trace(cell=cell, files=files, notes=list(filter(None, notes)))


def _counted(number: int, what: str, why: str) -> str:
    """`3 source files are left out: WHY`; empty where there are none."""
    what = what.removesuffix("s") if number == 1 else what
    return f"{number} {what} {'is' if number == 1 else 'are'} left out: {why}" if number else ""


def _changed(files: Sequence[str]) -> str:
    return f"changed since they were compiled, as {files[0]}" if files else ""


def _gcov_of(kernel: Kernel) -> tuple[str, str]:
    """The program that reads what the compiler of a kernel noted, and its package."""
    arch = load_arch(kernel.record.arch)
    if arch.is_native:
        return "gcov", "gcc"
    return f"{arch.facts.cross_prefix}gcov", arch.facts.build.compiler_package


def unpack(file: str, into: str, places: str, *caches: str) -> Unpacked:
    """Write counters and notes as N.gcda and N.gcno; in a process of its own, as a guest wrote the file.

    places: a SourcePlaces as JSON. caches: the folders in which there may be notes. Raises OSError
    where the file is no archive.
    """
    found = without = 0
    is_incomplete = False
    known = decode_exactly(places.encode(), SourcePlaces)
    for path, data in _counters_in(Path(file)):
        if path == _INCOMPLETE:
            is_incomplete = True
            continue
        notes = known.on_host(str(path)).with_suffix(NOTES)
        if not any(notes.is_relative_to(cache) for cache in caches) or not notes.is_file():
            without += 1
            continue
        Path(into, f"{found}{_COUNTERS}").write_bytes(data)
        # With its mtime, which says when the sources were read.
        shutil.copy2(notes, Path(into, f"{found}{NOTES}"))
        found += 1
    return Unpacked(found=found, without=without, is_incomplete=is_incomplete)


def _counters_in(file: Path) -> Iterator[tuple[Path, bytes]]:
    """The counters in a guest's archive, with the paths of their object files as the compiler saw them."""
    if file.stat().st_size > _MOST_BYTES:
        raise OSError(0, f"its counters are larger than {_MOST_BYTES >> 20} MiB", str(file))
    seen = set()
    try:
        with tarfile.open(file, "r:") as archive:
            for number, member in enumerate(archive):
                name = PurePosixPath(member.name)
                if number > _MOST_FILES:
                    raise OSError(0, f"its counters are in more than {_MOST_FILES} files", str(file))
                # A sparse file can be of any size. A path that comes twice would be read twice.
                is_plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
                is_ours = name.suffix == _COUNTERS or Path("/", name) == _INCOMPLETE
                is_ours &= ".." not in name.parts and not name.is_absolute()
                if not (is_plain and is_ours) or name in seen:
                    continue
                seen.add(name)
                taken = archive.extractfile(member)
                if taken is not None:
                    yield Path("/", name), taken.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise OSError(0, f"its counters cannot be read: {error}", str(file)) from error


async def run_gcov(program: str, folder: Path, numbers: Sequence[int]) -> list[str]:
    """Have gcov write a report for each N.gcda; returns why it could not, once for each such file."""
    sandbox = Sandbox(folder=str(folder), writable={str(folder): folder})
    lost: list[str] = []
    for first in range(0, len(numbers), _AT_A_TIME):
        some = numbers[first : first + _AT_A_TIME]
        argv = [program, "--json-format", *(f"{number}{_COUNTERS}" for number in some)]
        done = await process.run(sandbox.command(argv), limit=_LIMIT)
        said: dict[str, str] = {}
        for match in _UNUSED.finditer(done.errors.decode(errors="replace")):
            said.setdefault(match[1], match[2])
        died = [
            number
            for number in some
            if not (folder / f"{number}{SUFFIX}").exists() and str(number) not in said
        ]
        if len(some) > 1:
            # Of one of them; the others are read alone.
            lost += [why for number in died for why in await run_gcov(program, folder, [number])]
        else:
            said |= {str(number): done.last_words for number in died}
        for number in some:
            if (why := said.get(str(number))) is not None:
                (folder / f"{number}{SUFFIX}").unlink(missing_ok=True)
                # It quotes what the guest wrote.
                lost.append(
                    "compiled again since" if why.startswith("stamp") else f"gcov says: {clean_line(why)}"
                )
    return lost


def _join(folder: str, target: str, sources: str, places: str) -> LeftOut:
    """In a process of its own: a whole kernel has thousands of reports."""
    known = decode_exactly(places.encode(), SourcePlaces)
    return gcov.join(Path(folder), Path(target), Path(sources), known)
