"""Writes JUnit XML: one suite per cell, one case per test in its output, or one for the command itself.

The format is that of Ant's JUnit task, which CI systems read; junitparser writes the elements. XML allows no
control characters and no surrogates, so those that a guest wrote are replaced.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

import msgspec
from junitparser import Error, Failure, JUnitXml, Skipped, SystemErr, SystemOut, TestCase, TestSuite

from quizmatrix.core.text import clean_detail, tail
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report import builds
from quizmatrix.report.findings import other_paragraphs
from quizmatrix.report.formats.source import ReportSource
from quizmatrix.report.grid import command_words, evidence_lines, kept_disks, verdict_words
from quizmatrix.subtests import reading

# How many lines of each stream a suite holds; the whole is in the run directory.
_LINES = 500

# Characters that XML 1.0 does not allow (its production 2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DECLARATION = b"<?xml version='1.0' encoding='utf-8'?>\n"


class CaseKind(StrEnum):
    """How a case ended. The values are the names of a suite's attributes; GOOD has no attribute."""

    GOOD = "good"
    FAILURE = "failures"
    ERROR = "errors"
    SKIPPED = "skipped"


_KINDS = {
    Outcome.PASSED: CaseKind.GOOD,
    Outcome.FAILED: CaseKind.FAILURE,
    Outcome.TIMED_OUT: CaseKind.FAILURE,
    Outcome.PANICKED: CaseKind.FAILURE,
    Outcome.SPLAT: CaseKind.FAILURE,
    Outcome.BOOT_FAILED: CaseKind.ERROR,
    Outcome.LOST: CaseKind.ERROR,
    Outcome.UNPREPARED: CaseKind.ERROR,
    Outcome.CANCELLED: CaseKind.SKIPPED,
    Outcome.SKIPPED: CaseKind.SKIPPED,
}
_ELEMENTS = {CaseKind.FAILURE: Failure, CaseKind.ERROR: Error, CaseKind.SKIPPED: Skipped}


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test case. text: why it failed. note: further information. seconds: None where unknown."""

    name: str
    kind: CaseKind
    message: str = ""
    type_: str = ""
    text: str = ""
    note: str = ""
    seconds: float | None = None


def render(source: ReportSource) -> Iterator[bytes]:
    """The report, suite by suite: a cell may have 200,000 tests, and a run hundreds of cells."""
    total: Counter[CaseKind] = Counter()
    for result in source.cells:
        total += Counter(case.kind for case in _cases(source, result, explained=False))
    total[CaseKind.ERROR] += len(source.unended)
    root = JUnitXml(f"quizmatrix {_text(source.results.run)}")
    _count(root, total, source.results.seconds)
    head, _, _ = root.tostring().rpartition(b"/>")
    yield _DECLARATION + _undeclared(head).rstrip() + b">\n"
    for result in source.cells:
        yield _undeclared(_suite(source, result).tostring()) + b"\n"
    for cell, stage in source.unended.items():
        case = _Case(
            name=_command(source, None),
            kind=CaseKind.ERROR,
            message=f"no verdict: {stage or 'not begun'} when the run was cut off",
            type_="unended",
        )
        suite = TestSuite(_text(cell))
        suite.append(_element(case, cell))
        _count(suite, Counter([case.kind]), None)
        yield _undeclared(suite.tostring()) + b"\n"
    yield b"</testsuites>\n"


def _suite(source: ReportSource, result: CellResult) -> TestSuite:
    suite = TestSuite(_text(result.cell))
    if not result.earlier:
        suite.timestamp = source.results.started[:19]
    for name, value in _properties(source, result).items():
        suite.add_property(name, _text(value))
    counts: Counter[CaseKind] = Counter()

    def elements() -> Iterator[TestCase]:
        for case in _cases(source, result, explained=True):
            counts[case.kind] += 1
            yield _element(case, result.cell)

    # Not with add_testcase, which counts all cases again each time.
    suite.extend(elements())
    _count(suite, counts, result.timings.total or result.timings.command)
    folder = source.folder / result.folder
    for element, stream in ((SystemOut, "stdout"), (SystemErr, "stderr")):
        if lines := tail(folder / stream, _LINES):
            suite.append(element(_text("\n".join(lines))))
    return suite


def _count(element: JUnitXml | TestSuite, counts: Counter[CaseKind], seconds: float | None) -> None:
    element.tests = counts.total()
    element.failures = counts[CaseKind.FAILURE]
    element.errors = counts[CaseKind.ERROR]
    element.skipped = counts[CaseKind.SKIPPED]
    element.time = round(seconds or 0.0, 3)


def _properties(source: ReportSource, result: CellResult) -> dict[str, str]:
    known = {
        "kernel": result.kernel,
        "release": result.release,
        "arch": result.arch,
        "variant": result.variant,
        "shard": result.shard,
        "accelerator": result.accelerator,
        "outcome": result.outcome,
        "expected": result.expected,
        "exit_code": result.exit_code,
        "attempts": result.attempts,
        "flaky": result.flaky,
        "earlier": result.earlier,
        "profiles": ", ".join(result.profiles),
        "OpenZFS from": builds.words(result.built_from) if result.built_from else "",
        **(result.labels.facts if result.labels else {}),
        "command": _command(source, result),
        "folder": source.folder / result.folder,
        "tests without a case": _unnamed(source, result),
        **{f"finding {one.fingerprint}": f"{one.kind}: {one.title}" for one in result.findings},
    }
    return {name: str(value) for name, value in known.items() if value not in (None, "")}


def _unnamed(source: ReportSource, result: CellResult) -> str:
    """How many of its tests have no known name; empty where all have one."""
    named = len(reading.load(source.folder / result.folder)) if result.subtests else 0
    more = sum(result.subtests.values()) - named
    return str(more) if more > 0 else ""


def _cases(source: ReportSource, result: CellResult, *, explained: bool) -> Iterator[_Case]:
    """The cases of a cell. explained: with texts and notes, which are read from the logs."""
    tests = reading.load(source.folder / result.folder) if result.subtests else []
    known = result.is_as_expected and result.outcome is not Outcome.PASSED
    for test in tests:
        yield _case_of(test, known)
    told = result.is_as_expected or result.outcome is Outcome.FAILED
    if tests and (result.outcome is Outcome.PASSED or any(test.outcome.is_bad for test in tests)) and told:
        return  # the command itself needs no case
    kind = _KINDS[result.outcome]
    if known:
        kind = CaseKind.SKIPPED
    elif kind is CaseKind.GOOD and not result.is_as_expected:
        kind = CaseKind.FAILURE
    words = verdict_words(result)
    text = note = ""
    if explained:
        flaky = f"flaky: {result.flaky}" if result.flaky else ""
        earlier = f"not run again: from {result.earlier}" if result.earlier else ""
        note = "\n\n".join(filter(None, [flaky, earlier, other_paragraphs([result], source.folder)]))
    if explained and kind in (CaseKind.FAILURE, CaseKind.ERROR):
        lines = evidence_lines(result, source.folder)
        lines += ["", f"logs: {source.folder / result.folder}/"]
        lines += [f"disks it was given: {place}" for place in kept_disks([result], source.folder)]
        text = "\n".join(lines)
    yield _Case(
        name=_command(source, result),
        kind=kind,
        message=f"{words}: {clean_detail(result.detail)}" if result.detail else words,
        type_=str(result.outcome),
        text=text,
        note=note,
        seconds=result.timings.command,
    )


def _case_of(test: Subtest, known: bool) -> _Case:
    """The case of a test. known: the cell fails as its matrix expects, so its failures count as skipped."""
    if test.outcome is SubtestOutcome.SKIPPED:
        return _Case(name=test.name, kind=CaseKind.SKIPPED, seconds=test.seconds)
    if test.outcome is SubtestOutcome.FAILED_AS_EXPECTED:
        message = f"{test.outcome.words}: {test.known}"
        return _Case(name=test.name, kind=CaseKind.SKIPPED, message=message, seconds=test.seconds)
    if not test.outcome.is_bad:
        note = "flaky: failed, then passed" if test.failed_before else ""
        return _Case(name=test.name, kind=CaseKind.GOOD, note=note, seconds=test.seconds)
    word = str(test.outcome)
    if known:
        message = f"{word}, expected of its cell"
        return _Case(name=test.name, kind=CaseKind.SKIPPED, message=message, seconds=test.seconds)
    return _Case(name=test.name, kind=CaseKind.FAILURE, message=word, type_=word, seconds=test.seconds)


def _element(case: _Case, cell: str) -> TestCase:
    element = TestCase(_text(case.name), _text(cell), case.seconds)
    if case.kind in _ELEMENTS:
        end = _ELEMENTS[case.kind](_text(case.message), case.type_)
        if case.text:
            end.text = _text(case.text)
        element.append(end)
    if case.note:
        element.append(SystemOut(_text(case.note)))
    return element


def _command(source: ReportSource, result: CellResult | None) -> str:
    return command_words(source.results, result) or "(no command)"


def _text(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _undeclared(xml: bytes) -> bytes:
    """Remove the XML declaration, which the standard library writes, but lxml does not."""
    if xml.startswith(b"<?xml"):
        xml = xml[xml.index(b"?>") + 2 :].lstrip()
    return xml
