"""States in one sentence what the failures of a run have in common: `Fails only on s390x.`"""

from __future__ import annotations

from collections.abc import Iterator

from quizmatrix.core.version import KernelVersion, leading_version
from quizmatrix.model.arch import load_arch
from quizmatrix.model.labels import TaskGroup, sentence_of
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import SubtestOutcome

_VERBS = {
    Outcome.FAILED: "Fails",
    Outcome.TIMED_OUT: "Times out",
    Outcome.PANICKED: "Panics",
    Outcome.SPLAT: "Splats",
    Outcome.BOOT_FAILED: "Does not boot",
}

# A description of some results, such as `on s390x` or `from 6.12 on`, and their ids.
Rule = tuple[str, frozenset[str]]
# The id of a result, and the result whose kernel and architecture count for it.
ResultSite = tuple[str, CellResult]


def common_sentence(results: list[CellResult]) -> str:
    """`Fails only on s390x.`, `Fails only where written on big-endian.`, or an empty string.

    Only cells that ran count, and not those where no test failed but some were cut off by a time limit. The
    sentence is true for all of them: every cell that it describes failed, expected or not, and no other cell
    did. Where only some of an architecture's cells failed, it says how many. It is empty where every failure
    was expected. Each group has its own sentence.
    """
    sentences = []
    for group in (None, *TaskGroup):
        part = [result for result in results if result.group is group]
        head, sentence = sentence_of(group), _sentence(part, results)
        sentences.append(f"{head}{sentence[0].lower()}{sentence[1:]}" if head and sentence else sentence)
    return " ".join(filter(None, sentences))


def _sentence(part: list[CellResult], results: list[CellResult]) -> str:
    ran = [result for result in part if result.outcome.is_verdict or result.outcome in _VERBS]
    # A program of another architecture cannot run in a cell: its failure says nothing about the cell. And
    # tests that a time limit cut off say no more than that the cell was slow.
    ran = [result for result in ran if not result.foreign and not _was_only_cut_off(result)]
    failures = [result for result in ran if result.outcome is not Outcome.PASSED]
    failed = frozenset(result.cell for result in failures)
    if len(failed) == len(ran) or all(result.is_as_expected for result in failures):
        return ""
    outcomes = {result.outcome for result in ran if result.cell in failed}
    verb = _VERBS.get(outcomes.pop(), "Fails") if len(outcomes) == 1 else "Fails"
    places, more = _rules(ran, results)
    for words, cells in places + more:
        if cells == failed:
            return f"{verb} only {words}."
    for words, cells in places:
        if failed < cells and len(failed) > 1 and len(cells) < len(ran):
            return f"{verb} only {words} ({len(failed)} of {len(cells)} there)."
    return ""


def place_of(cells: frozenset[str], sites: list[ResultSite]) -> str:
    """What these cells have in common, and no other of `sites`: `on s390x`, `from 6.12 on`; else empty."""
    places, more = _rules_of(sites)
    return next((words for words, found in places + more if found == cells), "")


def _was_only_cut_off(result: CellResult) -> bool:
    """Whether a cell failed, and no test of its failed but those that were killed."""
    has_failed = result.subtests.get(SubtestOutcome.FAILED, 0) > 0
    return (
        result.outcome is Outcome.FAILED
        and result.subtests.get(SubtestOutcome.KILLED, 0) > 0
        and not has_failed
    )


def _rules(ran: list[CellResult], results: list[CellResult]) -> tuple[list[Rule], list[Rule]]:
    """The rules that may match in part (`2 of 3 there`), which name architectures, and all other rules."""
    labelled = [(result, result.labels) for result in ran if result.labels and result.labels.reader]
    if not labelled:
        return _rules_of([(result.cell, result) for result in ran])
    # A cell's kernel and architecture are those of whatever ran in it.
    known: dict[str | None, CellResult] = {r.labels.cells[-1]: r for r in results if r.labels}
    writers = [(result.cell, known[labels.writer]) for result, labels in labelled if labels.writer in known]
    readers = [(result.cell, known[labels.reader]) for result, labels in labelled if labels.reader in known]
    if len(writers) + len(readers) < 2 * len(labelled):
        return [], []  # of what is not known nothing can be said to be true
    wrote, wrote_when = _rules_of(writers, "where written ")
    read, read_when = _rules_of(readers, "where read ")
    orders = [{cell: _byte_order(site) for cell, site in sites} for sites in (writers, readers)]
    crossing = frozenset(cell for cell in orders[0] if orders[0][cell] != orders[1].get(cell))
    foreign = frozenset(result.cell for result, labels in labelled if labels.writer != labels.reader)
    both = [(f"{w} and {r.removeprefix('where ')}", a & b) for w, a in wrote for r, b in read]
    more = [("across byte orders", crossing), *both, ("where another cell wrote the disks", foreign)]
    return wrote + read, wrote_when + read_when + more


def _rules_of(sites: list[ResultSite], lead: str = "") -> tuple[list[Rule], list[Rule]]:
    """The rules for architectures, byte orders and variants, and those that involve kernel versions.

    lead: text put before each description.
    """
    places = [(lead + words, cells) for words, cells in _places(sites)]
    times = list(_times(sites))
    both = [(f"{where} {when}", there & then) for where, there in places for when, then in times]
    return places, [(lead + words, cells) for words, cells in times] + both


def _byte_order(result: CellResult) -> str:
    return load_arch(result.arch).facts.byte_order


def _places(sites: list[ResultSite]) -> Iterator[Rule]:
    orders = {site.arch: _byte_order(site) for _, site in sites}
    for arch in orders:
        yield f"on {arch}", frozenset(cell for cell, site in sites if site.arch == arch)
    for order in ("big", "little"):
        if list(orders.values()).count(order) > 1:
            yield (
                f"on {order}-endian",
                frozenset(cell for cell, site in sites if orders[site.arch] == order),
            )
    for variant in dict.fromkeys(site.variant for _, site in sites if site.variant):
        yield f"with {variant}", frozenset(cell for cell, site in sites if site.variant == variant)


def _times(sites: list[ResultSite]) -> Iterator[Rule]:
    """Rules for ranges of kernel versions. A kernel without a version is in none."""
    dated = [(version, cell) for cell, site in sites if (version := _series(site)) is not None]
    versions = sorted({version for version, _ in dated})
    for at in versions:
        yield f"on {at.text}", frozenset(cell for version, cell in dated if version == at)
    for at in versions[1:]:
        yield f"before {at.text}", frozenset(cell for version, cell in dated if version < at)
        yield f"from {at.text} on", frozenset(cell for version, cell in dated if version >= at)


def _series(result: CellResult) -> KernelVersion | None:
    """The series of the cell's kernel, `6.12`: the patch level may differ between architectures."""
    version = leading_version(result.release or result.kernel)
    return KernelVersion(version.series) if version else None
