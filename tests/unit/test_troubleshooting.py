"""Every message in docs/troubleshooting.md is one that quizmatrix prints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs/troubleshooting.md"

# Messages of the guest's programs, not of quizmatrix.
NOT_OURS = {"not found", "mount: ... No such file or directory"}


def messages(tree: ast.AST) -> Iterator[str]:
    """The strings in a module; f-strings without their replaced parts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)


MODULES = [ast.parse(path.read_text()) for path in (TOP / "quizmatrix").rglob("*.py")]
GUEST = [path.read_text() for path in (*(TOP / "guest").glob("init*"), TOP / "guest/programs/join.c")]
OURS = "\n".join([*(text for module in MODULES for text in messages(module)), *GUEST])

HEADINGS = [line for line in PAGE.read_text().splitlines() if line.startswith("### ")]
SHOWN = [text for line in HEADINGS for text in re.findall(r"`([^`]+)`", line) if text not in NOT_OURS]


def test_the_page_has_messages() -> None:
    assert len(SHOWN) > 40


@pytest.mark.parametrize("shown", SHOWN)
def test_every_message_of_the_page_is_one_of_ours(shown: str) -> None:
    parts = [part.strip() for part in shown.split("...")]
    assert any(parts)
    assert not [part for part in parts if part not in OURS]
