"""Which OpenZFS work tree a folder is in. Guests get what was built of the one around the current folder."""

from __future__ import annotations

import re
from pathlib import Path


def meta_of(folder: Path) -> dict[str, str]:
    """The fields of a folder's META file; empty where there is none."""
    try:
        text = (folder / "META").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return {}
    return dict(re.findall(r"^([\w-]+):[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE))


def tree_around(folder: Path) -> Path | None:
    """The OpenZFS work tree that a folder is in, if any."""
    start = folder.resolve()
    places = (start, *start.parents)
    return next((path for path in places if meta_of(path).get("Name") == "zfs"), None)
