"""Reads what a guest's memory lists: up to a largest number, and as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import drgn

T = TypeVar("T")

_LONGEST_NAME = 256


class Listed(Generic[T]):
    """The elements of a list, a tree or a table in a guest's memory."""

    def __init__(self, elements: Iterable[T], most: int) -> None:
        """most: how many are read.

        rest: after the iteration, a sentence on those that were not read; empty where all were.
        """
        self._elements = elements
        self._most = most
        self.rest = ""

    def __iter__(self) -> Iterator[T]:
        """The elements, up to the first that cannot be read."""
        number = 0
        try:
            for element in self._elements:
                if number == self._most:
                    self.rest = f"there are more than {self._most}"
                    return
                number += 1
                yield element
        except Exception as error:  # drgn's errors have no class in common
            self.rest = f"the rest was not read: {error}"


def text_of(value: drgn.Object) -> str:
    """A string: an array of characters, or what a pointer points to; "?" where it cannot be read."""
    try:
        if value.type_.kind is drgn.TypeKind.POINTER:
            data: bytes = value.prog_.read_c_string(value.value_(), max_size=_LONGEST_NAME)
        else:
            data = value.string_()
    except Exception:  # as above
        return "?"
    return data[:_LONGEST_NAME].decode(errors="replace")
