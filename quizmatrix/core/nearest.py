"""The name that was probably meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The most similar of the known names; None where none is as similar as `cutoff` (0 to 1)."""
    import difflib  # only for who mistyped

    return next(iter(difflib.get_close_matches(word, known, 1, cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The question that names the most similar; empty where there is none."""
    near = nearest(word, known, cutoff)
    return f"Did you mean `{near}`?" if near is not None else ""
