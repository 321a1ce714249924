"""Finds which options have to be set so that a condition holds in a kernel's configuration.

Nothing is guessed: a plan counts only where the configuration that would come of it fulfils the condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from quizmatrix.kernel.missing.expression import (
    MODULE,
    NO,
    YES,
    All,
    Constant,
    Either,
    Equal,
    Expression,
    Name,
    Not,
    Unknown,
    value,
)
from quizmatrix.kernel.missing.options import Entry, OptionTree

Values: TypeAlias = dict[str, int]

# Longest chain of options of which one needs the next.
_MAX_DEPTH = 12
# How often an option's value is computed again since others changed: a cycle must not go on for ever.
_MAX_CHANGES = 50
# Options that mark what is not for use. Where such a one is off, it stays off.
_NEVER = frozenset({"COMPILE_TEST", "BROKEN", "KUNIT"})
# What makes a plan worse, in switched options.
_WEIGHTS = {"EXPERT": 3.0, "DEBUG_KERNEL": 3.0, "STAGING": 5.0}
_OFF_WEIGHT = 4.0
_SELECTED_WEIGHT = 0.2
_DISTANCE_WEIGHT = 0.05


def values_of(config: Mapping[str, str]) -> Values:
    """The values of the options of a .config (see kconfig.read_config)."""
    return {name: MODULE if text == "m" else YES for name, text in config.items() if text != "n"}


class Configuration:
    """A kernel's configuration: what is set, and what would come of other lines."""

    def __init__(self, tree: OptionTree, values: Values) -> None:
        self.tree = tree
        self.values = values

    def value(self, condition: Expression) -> int:
        """The value of a condition."""
        return value(condition, lambda name: self.values.get(name, NO))

    def with_lines(self, wanted: Values) -> Configuration:
        """The configuration that `make olddefconfig` makes of this one with these values added.

        Options that could be set before keep their values, and others get their defaults. What loses its
        dependencies stays, since this is about what is switched on.
        """
        changes: dict[str, int] = {}
        values = dict(self.values)
        made = Configuration(self.tree, values)
        values |= {name: NO for name, level in wanted.items() if level == NO}
        todo = list(wanted)
        while todo:
            name = todo.pop()
            level = max(self.values.get(name, NO), made._new_value(name, wanted, self))
            changes[name] = changes.get(name, 0) + 1
            if level == values.get(name, NO) or wanted.get(name) == NO or changes[name] > _MAX_CHANGES:
                continue
            values[name] = level
            todo += self.tree.dependents.get(name, ())
            todo += [target for entry in self.tree.entries.get(name, ()) for target, _ in entry.selects]
        return made

    def _new_value(self, name: str, wanted: Values, before: Configuration) -> int:
        level = NO
        for entry in self.tree.entries.get(name, ()):
            limit = self.value(entry.depends)
            if limit == NO or entry.has_value:
                continue
            can_be_set = entry.prompt is not None and self.value(entry.prompt) > NO
            if can_be_set and name in wanted:
                level = max(level, min(wanted[name], limit))
            elif not entry.in_choice and not (can_be_set and before._could_be_set(entry)):
                level = max(level, min(self._default(entry), limit))
        for selector, condition in self.tree.selectors.get(name, ()):
            level = max(level, min(self.values.get(selector.name, NO), self.value(condition)))
        return YES if level and not self.tree.is_tristate(name) else level

    def _could_be_set(self, entry: Entry) -> bool:
        return entry.prompt is not None and self.value(entry.prompt) > NO and self.value(entry.depends) > NO

    def _default(self, entry: Entry) -> int:
        for default, condition in entry.defaults:
            if self.value(condition) > NO:
                return min(self.value(default), self.value(condition))
        return NO


def plan(now: Configuration, goal: Expression, near: str) -> Values | None:
    """The fewest options, with their values, with which `goal` holds; None where none do.

    near: a path in the source. Of equally good options, those that are defined near it are taken.
    """
    found = _Search(now, near).expression(goal, MODULE)
    if found is None:
        return None
    # An option may come with another one by its default.
    for name in list(found):
        fewer = {other: level for other, level in found.items() if other != name}
        if fewer and _holds(now, goal, fewer):
            found = fewer
    return found if _holds(now, goal, found) else None


def _holds(now: Configuration, goal: Expression, wanted: Values) -> bool:
    made = now.with_lines(wanted)
    granted = all(made.values.get(name, NO) == level for name, level in wanted.items())
    return granted and made.value(goal) > NO


class _Search:
    """A search for the cheapest options that fulfil a condition."""

    def __init__(self, now: Configuration, near: str) -> None:
        self._now = now
        self._near = near.split("/")
        self._above: list[str] = []
        self._known: dict[tuple[str, int], Values | None] = {}
        self._was_cut = False

    def expression(self, goal: Expression, level: int) -> Values | None:
        """The options for a condition to have at least this value; None where that cannot be."""
        if self._now.value(goal) >= level:
            return {}
        match goal:
            case Name(name):
                return self._option(name, level)
            case All(parts):
                found = [self.expression(one, level) for one in parts]
                return self._merged([one for one in found if one is not None]) if None not in found else None
            case Either(parts):
                return self._cheapest([self.expression(one, level) for one in parts])
            case Equal(name, wanted, is_negated):
                return self._equal(name, wanted, is_negated=is_negated)
            case Not(Name(name)):
                return self._off(name)
            case Not(Not(inner)):
                return self.expression(inner, level)
            case Not(Equal(name, wanted, is_negated)):
                return self._equal(name, wanted, is_negated=not is_negated)
            case Not(All(parts)):
                return self._cheapest([self.expression(Not(one), level) for one in parts])
            case Not(Either(parts)):
                return self.expression(All(tuple(Not(one) for one in parts)), level)
            case Unknown() | Constant() | Not():
                return None

    def _equal(self, name: str, wanted: int, *, is_negated: bool) -> Values | None:
        if (wanted == NO) != is_negated:
            return self._off(name)
        return self._option(name, YES if wanted == YES and not is_negated else MODULE)

    def _off(self, name: str) -> Values | None:
        """Switching an option off, where a user may."""
        entries = self._now.tree.entries.get(name, ())
        can_be = any(entry.prompt is not None and self._now.value(entry.prompt) > NO for entry in entries)
        selected = any(
            self._now.values.get(one.name, NO) for one, _ in self._now.tree.selectors.get(name, ())
        )
        return {name: NO} if can_be and not selected else None

    def _option(self, name: str, level: int) -> Values | None:
        if name in self._above or len(self._above) > _MAX_DEPTH:
            self._was_cut = True
            return None
        key = (name, level)
        if key in self._known or name in _NEVER:
            return self._known.get(key)
        was_cut, self._was_cut = self._was_cut, False
        self._above.append(name)
        found = self._best(name, level)
        self._above.pop()
        # What was given up since it leads back to an option above may do elsewhere.
        if not self._was_cut or found is not None:
            self._known[key] = found
        self._was_cut |= was_cut
        return found

    def _best(self, name: str, level: int) -> Values | None:
        entries = [one for one in self._now.tree.entries.get(name, ()) if not one.has_value]
        ways = [self._prompted(entry, entry.prompt, level) for entry in entries if entry.prompt is not None]
        if all(way is None for way in ways):
            # Where a default's conditions hold already, it was set to another value.
            ways += [
                self.expression(All((default, condition, entry.depends)), level) or None
                for entry in entries
                for default, condition in entry.defaults
            ]
            ways += [
                self.expression(All((Name(selector.name), condition)), level)
                for selector, condition in self._now.tree.selectors.get(name, ())
            ]
        return self._cheapest(ways)

    def _prompted(self, entry: Entry, prompt: Expression, level: int) -> Values | None:
        for wanted in (YES, level):
            needed = self._merged([self.expression(entry.depends, wanted), self.expression(prompt, MODULE)])
            if needed is not None:
                return {**needed, entry.name: wanted if entry.is_tristate else YES}
        return None

    def _merged(self, ways: list[Values | None]) -> Values | None:
        merged: Values = {}
        for way in ways:
            if way is None:
                return None
            for name, level in way.items():
                if NO in (level, merged.get(name, level)) and merged.get(name, level) != level:
                    return None
                merged[name] = max(merged.get(name, NO), level)
        return merged

    def _cheapest(self, ways: list[Values | None]) -> Values | None:
        return min((way for way in ways if way is not None), key=self._cost, default=None)

    def _cost(self, way: Values) -> tuple[float, list[str]]:
        return sum(self._weight(name, level) for name, level in way.items()), sorted(way)

    def _weight(self, name: str, level: int) -> float:
        if level == NO:
            return _OFF_WEIGHT
        entries = self._now.tree.entries.get(name, ())
        selected = {target for entry in entries for target, _ in entry.selects}
        away = min((self._distance(entry.file) for entry in entries), default=0)
        off = sum(1 for target in selected if not self._now.values.get(target, NO))
        is_test = "TEST" in name.split("_") or "DEBUG" in name.split("_")
        return (
            1 + _WEIGHTS.get(name, 3.0 if is_test else 0.0) + _SELECTED_WEIGHT * off + _DISTANCE_WEIGHT * away
        )

    def _distance(self, file: str) -> int:
        """How many folders lie between a file and `near`."""
        there = file.split("/")[:-1]
        here = self._near[:-1]
        common = sum(1 for _ in _common(here, there))
        return len(here) + len(there) - 2 * common


def _common(one: list[str], other: list[str]) -> list[str]:
    found = []
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        found.append(left)
    return found
