"""Kernel parameters from a matrix or the command line (kernel document admin-guide/kernel-parameters)."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The kernel splits its command line in this way: quoted text stays together.
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')


def check(text: str) -> None:
    """Raises ValueError if `text` cannot be part of a kernel command line."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("kernel parameters are on one line, without control characters")
    if text.count('"') % 2:
        raise ValueError(f"a quotation mark is not closed: {text}")


def joined(texts: Iterable[str]) -> str:
    """All of `texts`, the most specific last: if a parameter occurs twice, the kernel uses the last one.

    A word that a more specific text repeats is kept only once, so adding the same text again changes nothing.
    """
    whole: list[str] = []
    for text in texts:
        words = _WORD.findall(text)
        whole = [word for word in whole if word not in words] + words
    return " ".join(whole)
