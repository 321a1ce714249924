"""The table of the tests inside a run's commands, across its cells."""

from pathlib import Path

import msgspec

from quizmatrix.core.json import to_json
from quizmatrix.model.result import CellResult
from quizmatrix.model.subtest import Subtest, SubtestOutcome
from quizmatrix.report import testtable
from quizmatrix.report.grid import grid
from quizmatrix.subtests import reading
from tests.unit.test_report import result

LETTERS = {"p": "passed", "f": "failed", "s": "skipped", "k": "killed", "e": "failed-as-expected"}


def cells(run: Path, table: dict[str, str], names: str | None = None) -> list[CellResult]:
    """Results with one test per letter (`r`: failed, then passed; `-`: no such test)."""
    results = []
    for cell, letters in table.items():
        tests = [
            Subtest(
                name=f"t{place}" if names is None else f"{names}{place}",
                outcome=SubtestOutcome(LETTERS.get(letter, "passed")),
                failed_before=letter == "r",
            )
            for place, letter in enumerate(letters)
            if letter != "-"
        ]
        (run / cell).mkdir()
        if tests:
            (run / cell / reading.FILE).write_bytes(to_json(tests))
        results.append(result(cell, subtests={"passed": len(tests)} if tests else {}))
    return results


def test_what_differs(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64": "pspppk", "6.1-s390x": "psf-rk", "6.12-x86_64": ""})
    assert testtable.whole(found, tmp_path).splitlines() == [
        "test    6.1-x86_64    6.1-s390x",
        "------  ------------  --------------",
        "t2      passed        failed",
        "t4      passed        passed (rerun)",
        "t5      killed        killed",
        "t3      passed        -",
        "",
        "Fails only on s390x: t2",
    ]
    every = testtable.whole(found, tmp_path, every=True)
    assert [line.split()[0] for line in every.splitlines()[2:8]] == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert "\x1b[31mfailed" in testtable.whole(found, tmp_path, colour=True)


def test_a_test_that_was_cut_off_is_no_evidence(tmp_path: Path) -> None:
    letters = {"6.1-x86_64": "kkp", "6.1-s390x": "ppk", "6.12-s390x": "ppf", "6.12-x86_64": "ppp"}
    text = testtable.whole(cells(tmp_path, letters), tmp_path)
    # t0 and t1 were killed on x86_64 alone, and t2 on one of two s390x.
    assert [line for line in text.splitlines() if "only" in line] == ["Fails only on s390x: t2"]


def test_a_failure_that_is_expected_is_no_news_and_no_pass(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64": "eep", "6.1-s390x": "fpp", "6.12-s390x": "ffe"})
    lines = testtable.whole(found, tmp_path).splitlines()
    # t0 fails everywhere; that x86_64 passes, nobody may say.
    assert [line.split()[0] for line in lines[2:5]] == ["t0", "t1", "t2"]
    assert "failed as expected" in lines[2]
    assert not any(line.startswith("Fails only on s390x") for line in lines)


def test_nothing_to_compare(tmp_path: Path) -> None:
    same = cells(tmp_path, {"6.1-x86_64": "psp", "6.1-s390x": "psp"})
    assert testtable.whole(same, tmp_path) == ""
    assert testtable.whole(same[:1], tmp_path) == ""
    assert testtable.whole(same[:1], tmp_path, every=True).count("\n") == 4
    assert testtable.whole([], tmp_path, every=True) == ""


def test_one_cell(tmp_path: Path) -> None:
    (one,) = cells(tmp_path, {"6.1-s390x": "pfkrs"})
    assert testtable.whole([one], tmp_path).splitlines()[2:] == [
        "t1      failed",
        "t2      killed",
        "t3      passed (rerun)",
    ]
    assert testtable.failed_test_lines(one, tmp_path) == [
        "failed: t1",
        "killed: t2",
        "failed, then passed: t3",
    ]
    assert testtable.failed_test_lines(result("6.12-s390x"), tmp_path) == []


def test_slices_of_a_cell_share_a_column(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64@1of2": "p-", "6.1-x86_64@2of2": "-f"})
    found = [msgspec.structs.replace(one, arch="x86_64", shard=one.cell.rpartition("@")[2]) for one in found]
    assert testtable.whole(found, tmp_path, every=True).splitlines() == [
        "test    6.1-x86_64",
        "------  ------------",
        "t0      passed",
        "t1      failed",
    ]
    assert grid(found).splitlines()[2:] == ["6.1@1of2  passed  1.25s", "6.1@2of2  passed  1.25s"]


def test_many_rows(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64": "p" * 100, "6.1-s390x": "p" + "f" * 99})
    lines = testtable.whole(found, tmp_path).splitlines()
    assert len([line for line in lines if line.startswith("t") and line.endswith("failed")]) == 40
    assert "and 59 more (`quizmatrix runs show --tests` shows every test)" in lines
    assert lines[-1] == "Fails only on s390x: t1, t2, t3 and 96 more"
    assert len(testtable.whole(found, tmp_path, every=True).splitlines()) == 104
    assert testtable.failed_test_lines(found[1], tmp_path)[-1] == "and 59 more"


def test_more_tests_than_are_compared(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64": "pf", "6.1-s390x": "pp", "6.12-x86_64": "ff", "6.12-s390x": ""})
    table = testtable.collect(found, tmp_path, most=3)
    assert [cell.cell for cell in table.cells] == ["6.1-x86_64", "6.1-s390x"]
    assert testtable.sentences(table).splitlines() == [
        "Fails only on x86_64: t1",
        "There are more tests than are compared: those of 6.12-x86_64 are not.",
    ]


def test_many_cells(tmp_path: Path) -> None:
    ids = [f"{kernel}-{arch}" for kernel in ("5.10", "6.1", "6.12", "newest") for arch in ("x86_64", "s390x")]
    table = {
        cell: "pf" + ("f" if "s390x" in cell else "p") + ("s-" if "5.10" in cell else "pf") for cell in ids
    }
    lines = testtable.whole(cells(tmp_path, table, "functional/"), tmp_path).splitlines()
    assert lines == [
        "functional/1",
        "    failed everywhere",
        "functional/2",
        "    failed on 5.10-s390x, 6.1-s390x, 6.12-s390x, newest-s390x; passed on the other 4",
        "functional/4",
        "    absent on 5.10-x86_64, 5.10-s390x; failed on 6.1-x86_64, 6.1-s390x, 6.12-x86_64, 6.12-s390x, "
        "newest-x86_64,",
        "    newest-s390x",
        "functional/3",
        "    skipped on 5.10-x86_64, 5.10-s390x; passed on the other 6",
        "",
        "Fails only on s390x: functional/2",
    ]


def test_long_names_leave_no_room_for_columns(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64": "p", "6.1-s390x": "f"}, "x" * 100)
    lines = testtable.whole(found, tmp_path).splitlines()
    assert lines[1] == "    failed on 6.1-s390x; passed on the other 1"


def test_damaged_lists_cost_only_their_column(tmp_path: Path) -> None:
    found = cells(tmp_path, {"6.1-x86_64": "p", "6.1-s390x": "f"})
    (tmp_path / "6.1-x86_64" / reading.FILE).write_bytes(b"\xff")
    assert testtable.whole(found, tmp_path).splitlines() == [
        "test    6.1-s390x",
        "------  -----------",
        "t0      failed",
    ]
