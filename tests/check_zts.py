"""Runs OpenZFS's sanity.run to its end on x86_64 and s390x, for a table in docs/openzfs.md: `make check-zts`.

It takes hours. Each call runs slices that have not ended yet, for --max-time, and adds what they showed to
docs/openzfs-tests.json, which goes into git: the next call may be on another machine. The exit status is 0
where all tests have run and none failed but as expected, 1 where one did, and 75 where there
is more to run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quizmatrix.core import paths, process
from quizmatrix.core.json import to_json
from quizmatrix.core.text import clean_line, first_of
from quizmatrix.core.units import format_seconds
from quizmatrix.model import profile
from quizmatrix.model.cellid import parse_cell_id
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.runs import directory
from quizmatrix.subtests import reading
from quizmatrix.subtests.known import apply_known
from tests import openzfs

PAGE = Path(__file__).parents[1] / "docs/openzfs.md"
RECORD = PAGE.with_name("openzfs-tests.json")
# What stands between these lines is written anew.
_BEGIN, _END = "<!-- written by make check-zts -->", "<!-- end -->"

CELLS = ("6.1-x86_64", "6.1-s390x")
# Slices of each cell: some ten minutes each on two cores, so that a portion that ends loses little.
SLICES = 40
RUNFILE = "sanity.run"
# pool_checkpoint/checkpoint_sm_scale takes more than the 4 GiB that the suite has by default.
MEMORY = "8G"

# Outcomes of slices that have to run again.
_UNENDED = frozenset({Outcome.CANCELLED, Outcome.SKIPPED, Outcome.UNPREPARED, Outcome.LOST})
# What runs before and after the tests of a folder has results of its own, and is no test.
_AROUND = frozenset({"setup", "cleanup"})
# The line of zfs_tests_shard.py.
_DEALT = re.compile(r"^# shard \d+ of \d+: (\d+) of (\d+) tests$", re.MULTILINE)
_MORE = 75


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """What one slice showed.

    total: how many tests all slices have. seconds: of its guests' commands. day: when it ran. flaky: the
    tests that passed only when they ran again.
    """

    outcome: Outcome
    detail: str
    total: int
    seconds: float
    day: str
    tests: dict[str, SubtestOutcome]
    flaky: list[str]


class Record(msgspec.Struct, kw_only=True):
    """What all calls have shown. openzfs: its version. slices: how many each cell has. ended: by slice."""

    openzfs: str
    slices: int
    arguments: list[str]
    ended: dict[str, Slice] = {}

    def unended(self, cells: list[str]) -> list[str]:
        """The slices of these cells that have to run. Neighbours have the same tests in different cells."""
        names = [f"{cell}@{number}of{self.slices}" for number in range(1, self.slices + 1) for cell in cells]
        return [name for name in names if name not in self.ended]

    def add(self, results: RunResults, place: Path) -> None:
        """Take what a run's slices showed. place: its directory."""
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        for result in results.cells:
            if result.outcome not in _UNENDED:
                self.ended[result.cell] = _slice_of(result, place / result.folder, day)


def _slice_of(result: CellResult, folder: Path, day: str) -> Slice:
    output = folder / "stdout"
    dealt = _DEALT.search(output.read_text(errors="replace")) if output.is_file() else None
    tests = reading.load(folder)
    return Slice(
        outcome=result.outcome,
        detail=clean_line(result.detail),
        total=int(dealt[2]) if dealt else 0,
        seconds=result.timings.command or 0.0,
        day=day,
        tests={test.name: test.outcome for test in tests},
        flaky=[test.name for test in tests if test.failed_before],
    )


class Tally(msgspec.Struct, kw_only=True):
    """What the slices of one architecture have shown.

    total: how many tests there are; 0 where no slice has ended. seconds: of the guests' commands, together.
    known: those that failed as expected, today: when they ran the profile may not have known them.
    """

    total: int = 0
    counts: Counter[SubtestOutcome] = msgspec.field(default_factory=Counter)
    failed: list[str] = []
    known: list[str] = []
    flaky: int = 0
    crashes: list[str] = []
    seconds: float = 0.0

    @property
    def ran(self) -> int:
        """How many tests have a result."""
        return sum(self.counts.values())

    def add(self, name: str, part: Slice) -> None:
        """Count a slice in."""
        self.total = max(self.total, part.total)
        self.seconds += part.seconds
        if part.outcome not in (Outcome.PASSED, Outcome.FAILED):
            self.crashes.append(f"{name}: {part.outcome}: {part.detail}")
        judged = judged_today(name.partition("@")[0], part.tests)
        self.failed += [f"{test} ({outcome})" for test, outcome in judged.items() if outcome.is_bad]
        self.known += [
            test for test, outcome in judged.items() if outcome is SubtestOutcome.FAILED_AS_EXPECTED
        ]
        self.counts.update(outcome for test, outcome in judged.items() if _is_test(test))
        self.flaky += sum(map(_is_test, part.flaky))


def _is_test(name: str) -> bool:
    return Path(name).name.partition(" ")[0] not in _AROUND


def judged_today(cell: str, tests: dict[str, SubtestOutcome]) -> dict[str, SubtestOutcome]:
    """The outcomes of a cell's tests, with the failures that the suite's profile knows as such."""
    kernel, arch, variant = parse_cell_id(cell) or (cell, "", None)
    uses = profile.resolve(["ztest"], {}, "-p")
    known = [one for use in uses for one in profile.known_by(use.name) if one.is_for(kernel, arch, variant)]
    named = {name: Subtest(name=name, outcome=outcome) for name, outcome in tests.items()}
    return {name: test.outcome for name, test in apply_known(named, known)[0].items()}


def tallies(record: Record, cells: list[str]) -> dict[str, Tally]:
    """By cell, what the record shows."""
    found = {cell: Tally() for cell in cells}
    for name, part in record.ended.items():
        if (tally := found.get(name.partition("@")[0])) is not None:
            tally.add(name, part)
    return found


def table(found: dict[str, Tally], about: str) -> str:
    """The part of the page."""
    ran, total = (sum(getattr(one, name) for one in found.values()) for name in ("ran", "total"))
    words = [outcome.words for outcome in SubtestOutcome]
    rows = [["tests", *(str(one.total or "?") for one in found.values())]]
    rows += [
        [word, *(str(one.counts[outcome]) for one in found.values())]
        for word, outcome in zip(words, SubtestOutcome, strict=True)
    ]
    rows += [
        ["not run", *(str(max(0, one.total - one.ran)) if one.total else "?" for one in found.values())],
        ["passed only when they ran again", *(str(one.flaky) for one in found.values())],
        ["guests' time", *(format_seconds(one.seconds) for one in found.values())],
    ]
    lines = [f"| | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    notes = [
        f"{cell}: {what}: {first_of(names, 20)}."
        for cell, one in found.items()
        for what, names in (
            ("failed or killed", one.failed),
            ("failed as expected", one.known),
            ("slices without an end", one.crashes),
        )
        if names
    ]
    text = f"{about} **{ran} of {total or '?'} tests ran.**"
    return "\n\n".join([text, "\n".join(lines), *notes])


def write(text: str, page: Path = PAGE) -> None:
    """Put it into the page."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")


def status_of(found: dict[str, Tally]) -> int:
    """The exit status: see above."""
    if any(one.failed or one.crashes for one in found.values()):
        return 1
    return 0 if all(one.total and one.ran >= one.total for one in found.values()) else _MORE


def run(folder: Path, options: argparse.Namespace, tree: Path, names: list[str]) -> None:
    """Run these slices, into `folder`."""
    argv = [sys.executable, "-m", "quizmatrix", "run", "--max-time", options.max_time, "--build"]
    argv += ["--only", ",".join(names), "--shard", str(options.slices), "--rerun-failed", "1"]
    argv += ["--memory", MEMORY]
    argv += ["--output", str(folder / "run"), "--", "zfs-tests.sh", *options.arguments]
    print(process.printable(argv), flush=True)
    # Without a history, slices are always dealt in the runfile's order.
    environment = os.environ | {"QUIZMATRIX_STATE_DIR": str(folder / "state")}
    subprocess.run(argv, check=False, cwd=tree, env=environment)


def load_record(path: Path, version: str, options: argparse.Namespace) -> Record:
    """What earlier calls have shown of the same tests; else a new record."""
    new = Record(openzfs=version, slices=options.slices, arguments=options.arguments)
    if not path.exists():
        return new
    old = msgspec.json.decode(path.read_bytes(), type=Record)
    same = (old.openzfs, old.slices, old.arguments) == (new.openzfs, new.slices, new.arguments)
    print(f"{path}: {len(old.ended)} slices of OpenZFS {old.openzfs}{'' if same else ', which do not count'}")
    return old if same else new


def main() -> int:
    """What the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-time", default="150m")
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("arguments", nargs="*", default=["-r", RUNFILE], help="of zfs-tests.sh, behind --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree = openzfs.source_tree(Path(scratch) / "source")
    version = re.search(r"^Version:\s*(\S+)", (tree / "META").read_text(), re.MULTILINE)
    record = load_record(options.record, version[1] if version else "?", options)
    if names := record.unended(options.cells):
        # It stays, so that what failed can be looked at.
        folder = paths.cache_dir() / "tests/zts" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
        folder.mkdir(parents=True)
        run(folder, options, tree, names)
        record.add(directory.load(folder / "run"), folder / "run")
        options.record.write_bytes(to_json(record))
    days = sorted({part.day for part in record.ended.values()}) or ["never"]
    about = (
        f"`zfs-tests.sh {process.printable(options.arguments)}` of OpenZFS {record.openzfs}, on "
        f"{process.usable_cpus()} CPUs, {' to '.join(dict.fromkeys([days[0], days[-1]]))}:"
    )
    found = tallies(record, options.cells)
    write(table(found, about), options.page)
    print(table(found, about))
    return status_of(found)


if __name__ == "__main__":
    raise SystemExit(main())
