"""Conditions on a kernel's options: of Kconfig files, of makefiles and of the C preprocessor.

Values are those of Kconfig: 0 (n), 1 (m), 2 (y). What cannot be decided here, such as what a compiler can do,
counts as fulfilled. Grammar: kernel document kbuild/kconfig-language.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeAlias

import msgspec

NO, MODULE, YES = 0, 1, 2
LEVELS = {"n": NO, "m": MODULE, "y": YES}


class Name(msgspec.Struct, frozen=True):
    """An option."""

    name: str


class Constant(msgspec.Struct, frozen=True):
    """A fixed value."""

    value: int


class Unknown(msgspec.Struct, frozen=True):
    """What cannot be decided; also when it is negated."""


class Not(msgspec.Struct, frozen=True):
    """A negation."""

    of: Expression


class All(msgspec.Struct, frozen=True):
    """The smallest value of several."""

    of: tuple[Expression, ...]


class Either(msgspec.Struct, frozen=True):
    """The greatest value of several."""

    of: tuple[Expression, ...]


class Equal(msgspec.Struct, frozen=True):
    """Whether an option has exactly this value; negated: whether it has another."""

    name: str
    value: int
    negated: bool = False


Expression: TypeAlias = Name | Constant | Unknown | Not | All | Either | Equal
ALWAYS = All(())


def both(*conditions: Expression) -> Expression:
    """All of the conditions, without those that always hold."""
    found: dict[Expression, None] = {}
    for one in conditions:
        if isinstance(one, All):
            found |= dict.fromkeys(one.of)
        elif one != Constant(YES):
            found[one] = None
    return next(iter(found)) if len(found) == 1 else All(tuple(found))


def negated(condition: Expression) -> Expression:
    """The opposite of a condition."""
    return condition if isinstance(condition, Unknown) else Not(condition)


def value(expression: Expression, value_of: Callable[[str], int]) -> int:
    """The value of an expression. value_of: returns an option's value."""
    match expression:
        case Name(name):
            return value_of(name)
        case Constant(fixed):
            return fixed
        case Not(Unknown()) | Unknown():
            return YES
        case Not(inner):
            return YES - value(inner, value_of)
        case All(parts):
            return min((value(one, value_of) for one in parts), default=YES)
        case Either(parts):
            return max((value(one, value_of) for one in parts), default=NO)
        case Equal(name, wanted, is_negated):
            return YES if (value_of(name) == wanted) != is_negated else NO


def names(expression: Expression) -> Iterator[str]:
    """The options in an expression that are not negated."""
    match expression:
        case Name(name):
            yield name
        case All(parts) | Either(parts):
            for one in parts:
                yield from names(one)
        case Equal(name, wanted, is_negated) if (wanted != NO) != is_negated:
            yield name
        case _:
            pass


def parts_of(expression: Expression) -> Iterator[Expression]:
    """All expressions within one."""
    match expression:
        case All(parts) | Either(parts):
            for one in parts:
                yield one
                yield from parts_of(one)
        case Not(inner):
            yield inner
            yield from parts_of(inner)
        case _:
            pass


def mentioned(expression: Expression) -> Iterator[str]:
    """All options in an expression, negated or not."""
    for one in (expression, *parts_of(expression)):
        if isinstance(one, Name | Equal):
            yield one.name


_TOKEN = re.compile(r'\s*(&&|\|\||!=|<=|>=|==|[!()=<>]|"[^"]*"|\'[^\']*\'|\$\(\)|[\w./-]+)')
_OPERATORS = ("=", "==", "!=", "<", ">", "<=", ">=")


@cache
def parse(text: str) -> Expression:
    """The expression in a Kconfig file. `Unknown` where it is malformed."""
    try:
        return _either(_TOKEN.findall(_without_macros(text)))
    except (IndexError, RecursionError):
        return Unknown()


# A macro's call, without calls in its arguments other than `$()`.
_CALL = re.compile(r"\$\((?!\))(?:[^()$]|\$\(\)|\([^()]*\))*\)")


def _without_macros(text: str) -> str:
    """The text with `$()` in place of each call of a macro, which may have calls in its arguments."""
    before = ""
    while before != text:
        before, text = text, _CALL.sub("$()", text)
    return text


def _either(tokens: list[str]) -> Expression:
    parts = [_all(tokens)]
    while tokens and tokens[0] == "||":
        tokens.pop(0)
        parts.append(_all(tokens))
    return parts[0] if len(parts) == 1 else Either(tuple(parts))


def _all(tokens: list[str]) -> Expression:
    parts = [_one(tokens)]
    while tokens and tokens[0] == "&&":
        tokens.pop(0)
        parts.append(_one(tokens))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _one(tokens: list[str]) -> Expression:
    word = tokens.pop(0)
    if word == "!":
        return negated(_one(tokens))
    if word == "(":
        inner = _either(tokens)
        if tokens and tokens[0] == ")":
            tokens.pop(0)
        return inner
    if tokens and tokens[0] in _OPERATORS:
        return _compared(word, tokens.pop(0), tokens.pop(0))
    return _atom(word)


def _atom(word: str) -> Expression:
    if word in LEVELS:
        return Constant(LEVELS[word])
    return Name(word) if re.fullmatch(r"\w+", word) else Unknown()


def _compared(left: str, operator: str, right: str) -> Expression:
    if left in LEVELS:
        left, right = right, left
    right = right.strip("\"'")
    if operator in ("=", "==", "!=") and right in LEVELS and re.fullmatch(r"[A-Z0-9_]\w*", left):
        return Equal(left, LEVELS[right], operator == "!=")
    return Unknown()


# What a condition of the C preprocessor asks of an option, in the words of Kconfig. `@` marks options.
_IN_C = (
    (re.compile(r"/\*.*?\*/|//.*"), " "),
    (re.compile(r"\bIS_(?:ENABLED|REACHABLE)\s*\(\s*CONFIG_(\w+)\s*\)"), r"@\1"),
    (re.compile(r"\bIS_BUILTIN\s*\(\s*CONFIG_(\w+)\s*\)"), r"@\1=y"),
    (re.compile(r"\bIS_MODULE\s*\(\s*CONFIG_(\w+)\s*\)"), r"@\1=m"),
    (re.compile(r"\bdefined\s*\(?\s*CONFIG_(\w+)_MODULE\b\s*\)?"), r"@\1=m"),
    (re.compile(r"\bdefined\s*\(?\s*CONFIG_(\w+)\b\s*\)?"), r"@\1=y"),
    (re.compile(r"\bdefined\s*\(?\s*\w+\s*\)?|\b\w+\s*\([^()]*\)"), "$()"),
    (re.compile(r"(?<![@\w=])\w+"), "$()"),
    (re.compile("@"), ""),
)


@cache
def parse_c(directive: str, text: str) -> Expression:
    """The condition of `#if`, `#ifdef`, `#ifndef` and `#elif`. Only options can be decided."""
    if directive in ("ifdef", "ifndef"):
        condition = parse_c("if", f"defined({(text.split() or ['X'])[0]})")
        return negated(condition) if directive == "ifndef" else condition
    if text.strip() in ("0", "1"):
        return Constant(YES if text.strip() == "1" else NO)
    for pattern, instead in _IN_C:
        text = pattern.sub(instead, text)
    return parse(text)
