"""What the failures of a run have in common, in one sentence, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from quizmatrix.arch import load_arch
from quizmatrix.outcome import Outcome
from quizmatrix.spec import CellResult
from quizmatrix.version import KernelVersion, leading_version

_VERBS = {
    Outcome.FAILED: "Fails",
    Outcome.TIMED_OUT: "Times out",
    Outcome.PANICKED: "Panics",
    Outcome.SPLAT: "Splats",
    Outcome.BOOT_FAILED: "Does not boot",
}

# Words for a set of cells, `on s390x` or `from 6.12 on`, and the ids of the cells in it.
Rule = tuple[str, frozenset[str]]


def common_sentence(results: list[CellResult]) -> str:
    """`Fails only on s390x.`, `Fails only from 6.12 on.`, or nothing.

    Only cells that ran count. The sentence is true of all of them: every cell it speaks of
    failed, expected or not, and no other did; where some of an architecture's cells did not fail,
    it says how many did. Nothing is said where every failure was expected.
    """
    ran = [result for result in results if result.outcome.is_verdict or result.outcome in _VERBS]
    failures = [result for result in ran if result.outcome is not Outcome.PASSED]
    failed = frozenset(result.cell for result in failures)
    if len(failed) == len(ran) or all(result.is_as_expected for result in failures):
        return ""
    outcomes = {result.outcome for result in ran if result.cell in failed}
    verb = _VERBS.get(outcomes.pop(), "Fails") if len(outcomes) == 1 else "Fails"
    places, times = list(_places(ran)), list(_times(ran))
    both = [(f"{where} {when}", there & then) for where, there in places for when, then in times]
    for words, cells in places + times + both:
        if cells == failed:
            return f"{verb} only {words}."
    for words, cells in places:
        if failed < cells and len(failed) > 1 and len(cells) < len(ran):
            return f"{verb} only {words} ({len(failed)} of {len(cells)} there)."
    return ""


def _places(ran: list[CellResult]) -> Iterator[Rule]:
    orders = {arch: load_arch(arch).facts.byte_order for arch in dict.fromkeys(r.arch for r in ran)}
    for arch in orders:
        yield f"on {arch}", frozenset(result.cell for result in ran if result.arch == arch)
    for order in ("big", "little"):
        if list(orders.values()).count(order) > 1:
            yield (
                f"on {order}-endian",
                frozenset(result.cell for result in ran if orders[result.arch] == order),
            )
    for variant in dict.fromkeys(result.variant for result in ran if result.variant):
        yield f"with {variant}", frozenset(result.cell for result in ran if result.variant == variant)


def _times(ran: list[CellResult]) -> Iterator[Rule]:
    """Ranges of kernel versions. A kernel that has no version is in none."""
    dated = [(version, result.cell) for result in ran if (version := _series(result)) is not None]
    versions = sorted({version for version, _ in dated})
    for at in versions:
        yield f"on {at.text}", frozenset(cell for version, cell in dated if version == at)
    for at in versions[1:]:
        yield f"before {at.text}", frozenset(cell for version, cell in dated if version < at)
        yield f"from {at.text} on", frozenset(cell for version, cell in dated if version >= at)


def _series(result: CellResult) -> KernelVersion | None:
    """The series of the cell's kernel: `6.12`. One kernel's patch level differs by architecture."""
    version = leading_version(result.release or result.kernel)
    return KernelVersion(version.series) if version else None
