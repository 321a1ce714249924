"""The parser accepts every quizmatrix command line in the documents."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from quizmatrix.cli.parser import parse

TOP = Path(__file__).parents[2]
# docs/command-line.md is made from the parser.
PAGES = [
    TOP / "README.md",
    *(page for page in sorted((TOP / "docs").glob("*.md")) if page.name != "command-line.md"),
]

# What stands for something: NAME, [MATRIX], ...
PLACEHOLDER = re.compile(r"(?:^|[\s:\[])[A-Z][A-Z_]+(?:$|[\s\]./])|\.\.\.|\{")

# Names of commands in a sentence, help, and an option that a recipe adds.
NO_EXAMPLES = {"nightly install", "bisect", "cp", "--help", "run --help", "runs show latest --csv -"}


def blocks(text: str) -> Iterator[str]:
    """The lines of a page that are for a shell, in blocks and in sentences, without the prompt."""
    for kind, block in re.findall(r"^ *```(console|sh|text)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        yield from (line.removeprefix("$ ") for line in lines if kind != "console" or line.startswith("$ "))
    yield from re.findall(r"^    (?:\$ )?((?:\S+ )*quizmatrix .*)$", text, re.MULTILINE)
    yield from (code for code in re.findall(r"`(quizmatrix [^`\n]+)`", text) if not PLACEHOLDER.search(code))


def command_lines(line: str) -> Iterator[list[str]]:
    """The arguments of each `quizmatrix` in a line of a shell, without what is said behind several spaces."""
    lexer = shlex.shlex(re.sub(r"\s#.*| {3,}.*", "", line.strip()), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            words.append(word)
            continue
        if "quizmatrix" in words and not PLACEHOLDER.search(" ".join(words)):
            yield words[words.index("quizmatrix") + 1 :]
        words = []


def examples() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for line in blocks(page.read_text()):
            # A quotation over several lines belongs to the command and is skipped.
            if "quizmatrix " in line and line.count("'") % 2 == 0:
                yield from ((page.name, argv) for argv in command_lines(line))


EXAMPLES = {
    f"{page}: {shlex.join(argv)}": argv for page, argv in examples() if shlex.join(argv) not in NO_EXAMPLES
}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 100


@pytest.mark.parametrize("argv", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_is_taken(argv: list[str]) -> None:
    parse(argv)
