"""The tables of docs/modules-of-debian.md are of today's packages and cells."""

import pytest

from quizmatrix.build.parts import Done
from tests.check_modules import NATIVE
from tests.modules_page import CELLS, OTHERS, PACKAGES, PAGE


def tables() -> list[list[list[str]]]:
    """The page's tables that have packages; each a list of rows."""
    found = []
    for block in PAGE.read_text().split("\n\n"):
        rows = [line.strip("|").split(" | ") for line in block.splitlines() if line.startswith("|")]
        if rows and rows[0][0].strip() == "package":
            found.append([[cell.strip() for cell in row] for row in rows])
    return found


@pytest.mark.parametrize(
    ("which", "packages", "cells"), [(0, PACKAGES, list(CELLS)), (1, OTHERS, list(CELLS)[:1])]
)
def test_the_pages_tables_are_of_todays_packages_and_cells(
    which: int, packages: tuple[str, ...], cells: list[str]
) -> None:
    heads, _, *rows = tables()[which]
    native = [cell for cell in cells if cell in NATIVE]
    assert heads == [
        "package",
        *(CELLS[cell] for cell in cells),
        *(f"dkms, {CELLS[cell]}" for cell in native),
    ]
    assert [row[0].split()[0] for row in rows] == list(packages)
    assert {len(row) for row in rows} == {len(heads)}


def test_the_page_shows_nothing_that_dkms_builds_as_failed() -> None:
    for heads, _, *rows in tables():
        for row in rows:
            words = dict(zip(heads, row, strict=True))
            for head, said in words.items():
                if head.startswith("dkms, ") and said.startswith("built"):
                    assert words[head.removeprefix("dkms, ")] not in (Done.FAILED, Done.NOT_FOR_KERNEL), row
