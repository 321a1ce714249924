"""Keeps the answers of OpenZFS's ./configure (autoconf's config.cache) and gives them to later trees.

An answer is shared only if it is the same in every build of the configuration it is stored under. The path of
a program is not shared: it depends on the user's PATH and on what is installed. Neither are autoconf's
"precious" variables, which the user may set: ./configure refuses to continue if one of them has changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

_PROGRAM = rb"(?:ac|am|lt|acl)_cv_(?:path|prog)_\w+"


def shareable(found: bytes, varying: Iterable[str]) -> bytes:
    """The lines of a config.cache that hold for other builds. varying: precious variables that differ."""
    own = "|".join(map(re.escape, varying)).encode()
    # autoconf writes some values as `test ${NAME+y} || NAME='...'`.
    dropped = re.compile(rb"(?:test \S+ \|\| )?(?:%b|ac_cv_env_(?:%b)_(?:set|value))=" % (_PROGRAM, own))
    return b"".join(line for line in found.splitlines(keepends=True) if not dropped.match(line))


def for_one_build(shared: bytes, varying: Mapping[str, str]) -> bytes:
    """A config.cache for one build. varying: the values of its precious variables."""
    lines = [
        f"ac_cv_env_{name}_set=set\nac_cv_env_{name}_value={shlex.quote(value)}\n"
        for name, value in varying.items()
    ]
    # autoconf reads the file as a script, so later lines win.
    return shared.rstrip(b"\n") + b"\n" + "".join(lines).encode()
