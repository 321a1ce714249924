"""Kernel parameters from a matrix or the command line (kernel document admin-guide/kernel-parameters)."""

from __future__ import annotations

import re
from collections.abc import Iterable

# As the kernel takes a command line apart: what is in quotation marks stays together.
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')


def check(text: str) -> None:
    """ValueError where `text` cannot be a part of a command line."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("kernel parameters are on one line, without control characters")
    if text.count('"') % 2:
        raise ValueError(f"a quotation mark is not closed: {text}")


def joined(texts: Iterable[str]) -> str:
    """All of `texts`, the most specific one last: of a parameter that is there twice, the last one counts.

    What a more specific text repeats word for word is there once, so that adding all of it again changes
    nothing.
    """
    whole: list[str] = []
    for text in texts:
        words = _WORD.findall(text)
        whole = [word for word in whole if word not in words] + words
    return " ".join(whole)
