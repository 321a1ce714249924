"""Writes the page of the lines that ran in a run, with gcovr's, into one folder."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from quizmatrix.core import paths, process, sandbox
from quizmatrix.core.errors import (
    FREE_SPACE,
    DamagedError,
    HostError,
    QuizmatrixError,
    UnpreparedError,
    UsageError,
    host_error,
)
from quizmatrix.core.json import to_json
from quizmatrix.core.process import Tell
from quizmatrix.coverage import differences, index, trace
from quizmatrix.coverage.sources import CountedTrees
from quizmatrix.coverage.trace import Trace
from quizmatrix.model.options import REPORTS, ResultOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults

PAGE, LINES = "index.html", "lines"
LCOV, GCOVR_JSON, DIFFERENCES = "coverage.lcov", "coverage.json", "differences.json"
_FILES = frozenset({PAGE, LINES, LCOV, GCOVR_JSON, DIFFERENCES})

# Groups of lines that the summary names.
_SHOWN = 3


def check(options: ResultOptions) -> None:
    """Raise UsageError where the page cannot be made in its folder, HostError where a program is missing.

    Called before anything is run.
    """
    if importlib.util.find_spec("gcovr") is None:
        raise HostError(
            "--coverage needs gcovr", next_step="`pip install 'quizmatrix[coverage]'` installs it."
        )
    sandbox.require()
    target = Path(options.coverage or "").resolve()
    if not os.access(target.parent, os.W_OK):
        raise UsageError(
            f"--coverage {options.coverage} cannot be written", next_step="Name a folder in one of yours."
        )
    _check_replaceable(target)
    named = {"--output": options.output} | {f"--{form}": getattr(options, form) for form in REPORTS}
    for option, text in named.items():
        if text not in (None, "-") and Path(text).resolve().is_relative_to(target):
            raise UsageError(
                f"{option} {text} is in the folder of --coverage, which is replaced",
                next_step="Name another folder for one of them.",
            )


def _check_replaceable(target: Path) -> None:
    """Raise UsageError where the folder has something else than an earlier page."""
    if not os.path.lexists(target):
        return
    names = {path.name for path in target.iterdir()} if target.is_dir() else {""}
    if names not in (set(), _FILES) or target == Path.cwd():
        raise UsageError(
            f"--coverage {target} is neither new, nor empty, nor the page of an earlier run",
            next_step="Name another folder: it would be replaced.",
        )


async def write(run: Path, results: RunResults, target: Path, tell: Tell) -> list[str]:
    """Write the page of a run, in place of an earlier one; returns its summary, a line each.

    run: the run directory. Raises UnpreparedError where no line was counted, DamagedError where gcovr fails,
    UsageError where the folder has something else by now, HostError where the disk is full.
    """
    target = target.resolve()
    try:
        with paths.scratch(paths.cache_dir(), "coverage") as name, paths.new_dir(target) as made:
            said = await _make(run, results, Path(name), made, tell)
            _check_replaceable(target)
            if target.exists():
                shutil.rmtree(target)
    except OSError as error:
        raise host_error(f"write {target}", error) from error
    return [f"coverage: {line}" for line in (f"{target / PAGE}", *said)]


async def _make(run: Path, results: RunResults, work: Path, made: Path, tell: Tell) -> list[str]:
    trees_of_page, sources = CountedTrees(), work / trace.SOURCES
    for folder in (sources, work / trace.REPORTS):
        folder.mkdir()
    traces, notes = await _traces(run, results, work, trees_of_page, tell)
    merged = differences.merge(traces)
    if not merged:
        raise UnpreparedError(
            "no line was counted",
            cause="; ".join(notes) or "no module that counts was loaded",
            next_step="`zfs build --coverage` and `module build --make GCOV_PROFILE=y` build modules that "
            "count, for kernels of the variants gcov and gcov_modules.",
        )
    counts = differences.count(merged)
    groups = index.groups_of(results, differences.find(merged, traces))
    tell("writing the page of all lines")
    (made / LINES).mkdir()
    await _run_gcovr(
        work / trace.REPORTS,
        f"--root={sources}",
        *(f"--html-details={made / LINES / PAGE}", f"--html-title=quizmatrix {results.run}"),
        *(f"--lcov={made / LCOV}", f"--json={made / GCOVR_JSON}"),
    )
    _name_originals(made / LCOV, sources, trees_of_page)
    (made / DIFFERENCES).write_bytes(to_json(groups))
    page = index.render(results, counts, groups, notes, sources)
    (made / PAGE).write_text(page, encoding="utf-8", errors="replace")
    return list(_summary(counts, groups, notes))


async def _run_gcovr(folder: Path, *words: str) -> None:
    """Run gcovr on the reports in a folder. Raises DamagedError where it fails, HostError on a full disk."""
    given = ["--gcov-use-existing-files", "--merge-mode-functions=separate", "--no-markers"]
    # Lines in a loop run more often than it thinks possible.
    given.append("--gcov-suspicious-hits-threshold=0")
    done = await process.run([sys.executable, "-P", "-m", "gcovr", ".", *given, *words], cwd=folder)
    if done.status != 0:
        is_full = b"No space left" in done.errors
        raise (HostError if is_full else DamagedError)(
            "gcovr could not write its pages", cause=done.last_words, next_step=FREE_SPACE if is_full else ""
        )


def _name_originals(lcov: Path, sources: Path, trees: CountedTrees) -> None:
    """Name the user's files in a report for lcov, in place of the copies."""
    copies = f"SF:{sources.resolve()}/"
    with lcov.open(errors="surrogateescape") as file:
        lines = [
            f"SF:{trees.places.original(line.removeprefix(copies))}" if line.startswith(copies) else line
            for line in file
        ]
    lcov.write_text("".join(lines), errors="surrogateescape")


async def _traces(
    run: Path, results: RunResults, work: Path, trees: CountedTrees, tell: Tell
) -> tuple[list[Trace], list[str]]:
    """The traces of all guests, and what is missing."""
    traces, notes = [], []
    for result in results.cells:
        for guest in ("", *result.further):
            name = f"{result.cell}/{guest}" if guest else result.cell
            tell(f"reading the counters of {name}")
            try:
                read = await trace.read(run / result.folder / guest, result.unsharded, work, trees)
            except (QuizmatrixError, OSError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                notes.append(f"{name} is not counted: {_words(error)}")
                continue
            if read is None:
                notes.append(f"{name} is not counted: {_why_none(result)}")
                continue
            traces.append(read)
            notes += [f"{name}: {note}" for note in read.notes]
        if result.earlier:
            notes.append(f"{result.cell} is of the run {result.earlier}")
    return traces, notes


def _words(error: QuizmatrixError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error} ({error.next_step})" if error.next_step else str(error)


def _why_none(result: CellResult) -> str:
    """Why a guest kept no counters."""
    if result.outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.SPLAT):
        return "its guest kept no counters"
    return ": ".join(filter(None, (result.outcome, result.detail)))


def _summary(
    counts: Sequence[differences.TreeCount], groups: Sequence[index.ReachedLines], notes: Sequence[str]
) -> Iterator[str]:
    for one in counts:
        yield f"{index.share(one.reached, one.lines)} of {one.lines} lines of {one.tree} ran"
    for group in groups[:_SHOWN]:
        elsewhere = index.ELSEWHERE[group.elsewhere]
        yield f"{group.lines} line{'s' if group.lines > 1 else ''} {group.words}{elsewhere}"
    if more := groups[_SHOWN:]:
        yield f"and {sum(group.lines for group in more)} more that only some cells reach"
    yield from notes
