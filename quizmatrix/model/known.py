"""Failures of single tests that are known: what a matrix or a profile says of them, and what came of that."""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec


class KnownFailure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tests that are known to fail, and why. test, kernel, arch, variant: globs.

    Without `variant` it applies to cells with and without a variant.
    """

    test: str
    kernel: str = "*"
    arch: str = "*"
    variant: str | None = None
    why: str

    def __post_init__(self) -> None:
        """Raises ValueError, "`KEY`: ...", if a value is empty."""
        for key, text in (("test", self.test), ("why", self.why)):
            if not text.strip():
                raise ValueError(f"`{key}`: is empty")

    def is_for(self, kernel: str, arch: str, variant: str | None) -> bool:
        """Whether it applies to a cell."""
        return (
            fnmatchcase(kernel, self.kernel)
            and fnmatchcase(arch, self.arch)
            and (self.variant is None or fnmatchcase(variant or "", self.variant))
        )


class KnownUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one known failure has met in a cell.

    test: the glob, or the name in a suite's own list. ran: how many tests that it fits ran. failed: how many
    of them failed.
    """

    test: str
    ran: int
    failed: int
