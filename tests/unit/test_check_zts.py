"""What `make check-zts` makes of a run of OpenZFS's suite."""

from pathlib import Path

import msgspec

from quizmatrix.core.json import to_json
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults, Timings
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.subtests import reading
from tests import check_zts
from tests.check_zts import Record

ABOUT = "It:"
CELLS = ["6.1-x86_64", "6.1-s390x"]
PASSED, FAILED = SubtestOutcome.PASSED, SubtestOutcome.FAILED


def a_slice(place: Path, cell: str, outcome: str, tests: dict[str, SubtestOutcome]) -> CellResult:
    folder = place / cell
    folder.mkdir()
    (folder / "stdout").write_text("# quizmatrix: selects tests\n# shard 1 of 2: 2 of 4 tests\n")
    listed = [Subtest(name=name, outcome=word, failed_before=name == "x/c") for name, word in tests.items()]
    (folder / reading.FILE).write_bytes(to_json(listed))
    return CellResult(
        cell=cell,
        kernel="6.1",
        release="6.1.0",
        arch=cell.partition("@")[0].rpartition("-")[2],
        variant=None,
        accelerator=None,
        outcome=Outcome(outcome),
        detail="a bug",
        timings=Timings(command=30.0),
    )


def record_of(place: Path, cells: list[CellResult]) -> Record:
    record = Record(openzfs="2.4.3", slices=2, arguments=["-r", "sanity.run"])
    record.add(
        RunResults(run="r", command=["zfs-tests.sh"], started="2026-11-01T12:00:00+00:00", cells=cells), place
    )
    return record


def test_its_table_says_how_many_of_how_many_ran(tmp_path: Path) -> None:
    tests = {"x/setup": PASSED, "x/a": PASSED, "x/b": SubtestOutcome.FAILED_AS_EXPECTED}
    more = {"y/setup": FAILED, "y/a": SubtestOutcome.SKIPPED, "x/c": PASSED, "x/cleanup (Linux)": PASSED}
    cells = [
        a_slice(tmp_path, "6.1-x86_64@1of2", "passed", tests),
        a_slice(tmp_path, "6.1-x86_64@2of2", "panicked", more),
        a_slice(tmp_path, "6.1-s390x@1of2", "passed", tests),
        a_slice(tmp_path, "6.1-s390x@2of2", "cancelled", {"x/c": FAILED}),
    ]
    record = record_of(tmp_path, cells)
    found = check_zts.tallies(record, CELLS)
    text = check_zts.table(found, ABOUT)
    assert text.startswith(
        "It: **6 of 8 tests ran.**\n\n| | 6.1-x86_64 | 6.1-s390x |\n|---|---|---|\n| tests | 4 | 4 |\n"
    )
    for row in (
        *(
            "passed | 2 | 1",
            "failed as expected | 1 | 1",
            "failed | 0 | 0",
            "skipped | 1 | 0",
            "not run | 0 | 2",
        ),
        *("passed only when they ran again | 1 | 0", "guests' time | 1m00s | 30.0s"),
    ):
        assert f"\n| {row} |" in text, text
    assert "x86_64: failed or killed: y/setup (failed)." in text
    assert "x86_64: slices without an end: 6.1-x86_64@2of2: panicked: a bug." in text
    assert check_zts.status_of(found) == 1
    assert check_zts.status_of(check_zts.tallies(record_of(tmp_path, cells[2:]), CELLS)) == 75
    # The next call runs what was stopped, and adds to what the record has, here or on another machine.
    assert record.unended(CELLS) == ["6.1-s390x@2of2"]
    kept = msgspec.json.decode(to_json(record), type=Record)
    other = tmp_path / "other"
    other.mkdir()
    again = a_slice(other, "6.1-s390x@2of2", "passed", {"x/c": PASSED, "y/a": PASSED})
    kept.add(RunResults(run="r", command=[], started="2026-11-02T12:00:00+00:00", cells=[again]), other)
    assert kept.unended(CELLS) == []
    assert "**8 of 8 tests ran.**" in check_zts.table(check_zts.tallies(kept, CELLS), ABOUT)


def test_it_is_done_where_all_tests_ran_as_expected(tmp_path: Path) -> None:
    one = a_slice(tmp_path, "6.1-s390x@1of2", "passed", dict.fromkeys(("a/a", "a/b", "a/c", "a/d"), PASSED))
    assert check_zts.status_of(check_zts.tallies(record_of(tmp_path, [one]), CELLS[1:])) == 0


def test_what_the_profile_knows_today_failed_as_expected(tmp_path: Path) -> None:
    failed = dict.fromkeys(("functional/rsend/recv_dedup", "a/b", "a/c", "a/d"), FAILED)
    slices = [a_slice(tmp_path, f"{cell}@1of1", "failed", failed) for cell in CELLS]
    here, there = check_zts.tallies(record_of(tmp_path, slices), CELLS).values()
    assert (len(here.failed), here.known) == (4, [])
    assert (len(there.failed), there.known) == (3, ["functional/rsend/recv_dedup"])
    # As those that it knew already when they ran.
    (tmp_path / "later").mkdir()
    told = dict.fromkeys(("functional/rsend/recv_dedup",), SubtestOutcome.FAILED_AS_EXPECTED)
    later = record_of(tmp_path / "later", [a_slice(tmp_path / "later", "6.1-s390x@1of1", "passed", told)])
    assert check_zts.tallies(later, CELLS)["6.1-s390x"].known == ["functional/rsend/recv_dedup"]


def test_its_part_of_the_page_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(check_zts.PAGE.read_text())
    for text in ("one", "two"):
        check_zts.write(text, page)
    assert page.read_text().count("two") >= 1
    assert "<!-- written by make check-zts -->\ntwo\n<!-- end -->" in page.read_text()
    before = check_zts.PAGE.read_text().partition("<!-- written by make check-zts -->")[0]
    assert page.read_text().startswith(before)
