"""Suggests the known name that is most similar to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name most similar to `word`; None if none has a similarity of `cutoff` (0 to 1)."""
    import difflib  # needed only after a typing error

    return next(iter(difflib.get_close_matches(word, known, 1, cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """A question that suggests the most similar name; empty if there is none."""
    near = nearest(word, known, cutoff)
    return f"Did you mean `{near}`?" if near is not None else ""
