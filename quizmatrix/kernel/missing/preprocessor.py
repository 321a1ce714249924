"""Follows the C preprocessor's conditions through a file, as far as they are about a kernel's options."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quizmatrix.kernel.missing.expression import ALWAYS, Expression, both, negated, parse_c

_DIRECTIVE = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)")


def lines_with_conditions(text: str) -> Iterator[tuple[str, Expression]]:
    """Each line of a C file with the condition under which it is compiled."""
    # For each level: the condition of the present branch, and the opposite of the branches before it.
    stack: list[tuple[Expression, Expression]] = []
    condition: Expression = ALWAYS
    for line in text.replace("\\\n", "  ").splitlines():
        match = _DIRECTIVE.match(line)
        if match is None:
            yield line, condition
            continue
        keyword, rest = match.groups()
        if keyword in ("if", "ifdef", "ifndef"):
            stack.append((parse_c(keyword, rest), ALWAYS))
        elif keyword == "endif" and stack:
            stack.pop()
        elif stack:
            this, before = stack.pop()
            before = both(before, negated(this))
            stack.append((parse_c("if", rest) if keyword == "elif" else ALWAYS, before))
        condition = both(*(one for pair in stack for one in pair))


def members_with_conditions(text: str, struct: str) -> Iterator[tuple[str, Expression]]:
    """The lines between the braces of `struct NAME {`, each with its condition."""
    begins = re.compile(rf"^(?:typedef\s+)?(?:struct|union)\s+{re.escape(struct)}\s*\{{")
    depth = 0
    for line, condition in lines_with_conditions(text):
        if depth == 0 and not begins.match(line):
            continue
        depth += line.count("{") - line.count("}")
        yield line, condition
        if depth <= 0:
            return
