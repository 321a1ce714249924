"""Says why a kernel lacks what a module needs, and which lines of configuration give it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cached_property

import msgspec

from quizmatrix.core.concurrency import in_thread
from quizmatrix.kernel.missing.expression import (
    MODULE,
    NO,
    YES,
    Either,
    Expression,
    Unknown,
    names,
    parts_of,
)
from quizmatrix.kernel.missing.options import OptionTree, option_tree
from quizmatrix.kernel.missing.search import Place, Places, Source
from quizmatrix.kernel.missing.switching import Configuration, Values, plan, values_of

_NAMED = 3


class Kind(StrEnum):
    """What is missed: a symbol at the end of a build, the others by the compiler."""

    SYMBOL = "symbol"
    NAME = "name"
    STRUCT = "struct"
    MEMBER = "member"
    HEADER = "header"


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a module needs. struct: of a member."""

    kind: Kind
    name: str
    struct: str = ""

    @property
    def text(self) -> str:
        """As a person calls it."""
        if self.kind is Kind.STRUCT:
            return f"struct {self.name}"
        return f"{self.struct}.{self.name}" if self.struct else self.name


class Lacking(msgspec.Struct, frozen=True, kw_only=True):
    """What depends on the same options, which are off. file: one that has some of it."""

    missed: tuple[Missed, ...]
    options: tuple[str, ...]
    condition: Expression
    file: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a module does not fit a kernel.

    reasons: sentences. conditions: what must hold in another kernel's configuration. lines: the options, with
    their values, that make them hold; None where nothing does. strangers: how many symbols nothing in the
    kernel exports.
    """

    reasons: list[str]
    conditions: list[Expression] = []
    lines: Values | None = None
    strangers: int = 0


class Explainer:
    """Explains what modules miss in one kernel. version: as a person is told."""

    def __init__(self, source: Source, config: dict[str, str], version: str, arch: str) -> None:
        self._source = source
        self._values = values_of(config)
        self._version = version
        self._arch = arch

    @cached_property
    def tree(self) -> OptionTree:
        """The kernel's options."""
        return option_tree(self._source.tree, self._source.srcarch)

    @cached_property
    def now(self) -> Configuration:
        """The kernel's configuration."""
        return Configuration(self.tree, self._values)

    async def explain(self, missed: Iterable[Missed], unresolved: Iterable[str] = ()) -> Explanation:
        """Why these are missed. Raises HostError where grep(1) cannot be started.

        unresolved: symbols that the module uses, of which this kernel may lack some. Of these, only those
        count that an option of it exports.
        """
        asked = list(dict.fromkeys(missed))
        found = await self._places([one for one in asked if one.kind is not Kind.HEADER])
        more = [Missed(kind=Kind.SYMBOL, name=name) for name in unresolved]
        for one, places in (await self._places([one for one in more if one not in found])).items():
            if places and self.now.value(Either(tuple(place.condition for place in places))) == NO:
                asked.append(one)
                found[one] = places
        await in_thread(lambda: self.tree)
        reasons: list[str] = []
        off: dict[tuple[str, ...], Lacking] = {}
        for one in asked:
            if one.kind is Kind.HEADER:
                reasons.append(self._header(one.name))
            elif not (places := found.get(one, [])):
                reasons.append(await self._nowhere(one))
            elif self.now.value(condition := Either(tuple(place.condition for place in places))) > NO:
                reasons.append(self._there(one, places[0]))
            else:
                options = self._off(condition)
                before = off.get(options)
                off[options] = Lacking(
                    missed=(*(before.missed if before else ()), one),
                    options=options,
                    condition=before.condition if before else condition,
                    file=before.file if before else places[0].file,
                )
        strangers = sum(1 for one in asked if one.kind is Kind.SYMBOL and not found.get(one))
        return await in_thread(lambda: self._planned(list(off.values()), reasons, strangers))

    async def _places(self, asked: list[Missed]) -> dict[Missed, list[Place]]:
        by_kind: dict[Kind, list[Missed]] = {}
        for one in asked:
            by_kind.setdefault(one.kind, []).append(one)
        found: dict[Missed, list[Place]] = {}
        for kind, ask in ((Kind.SYMBOL, self._source.exports), (Kind.NAME, self._source.declarations)):
            if some := by_kind.get(kind):
                places: Places = await ask([one.name for one in some])
                found |= {one: places[one.name] for one in some}
        for one in by_kind.get(Kind.STRUCT, []):
            found[one] = (await self._source.members(one.name, "{"))[0]
        for one in by_kind.get(Kind.MEMBER, []):
            found[one] = (await self._source.members(one.struct, one.name))[1]
        return found

    def _off(self, condition: Expression) -> tuple[str, ...]:
        """The options of which the condition lacks each: with all of them on it would hold."""
        there = dict.fromkeys(names(condition))
        off = [name for name in there if self._values.get(name, NO) == NO] or list(there)
        for name in reversed(off):
            fewer = [other for other in off if other != name]
            on = Configuration(self.tree, self._values | dict.fromkeys(fewer, YES))
            if fewer and on.value(condition) > NO:
                off = fewer
        return tuple(off)

    def ways_to(self, conditions: Iterable[Expression]) -> Explanation:
        """How to make conditions hold, without reasons."""
        lines: Values = {}
        made = self.now
        for condition in conditions:
            own = plan(made, condition, "")
            if own is None:
                return Explanation(reasons=[], conditions=list(conditions))
            lines |= own
            made = self.now.with_lines(lines)
        return Explanation(reasons=[], conditions=list(conditions), lines=lines)

    def _planned(self, lacking: list[Lacking], reasons: list[str], strangers: int) -> Explanation:
        """Reasons for what options switch off, with the lines that switch them on, one after another."""
        lines: Values = {}
        made = self.now
        is_possible = True
        for group in lacking:
            own = plan(made, group.condition, group.file)
            if own is None:
                is_possible = False
            else:
                lines |= own
                made = self.now.with_lines(lines)
            reasons.append(self._lacking(group, own))
        return Explanation(
            reasons=reasons,
            conditions=[group.condition for group in lacking],
            lines=lines if lacking and is_possible else None,
            strangers=strangers,
        )

    def _lacking(self, group: Lacking, lines: Values | None) -> str:
        words = " and ".join(f"CONFIG_{name}" for name in group.options) or "options that were not found"
        some = [one.text for one in group.missed]
        text = f"{_listed(some)} {'is' if len(some) == 1 else 'are'} of {words} ({group.file})"
        absent = [name for name in group.options if name not in self.tree.entries]
        if absent:
            return f"{text}: {self._version} for {self._arch} has no option {', '.join(absent)}"
        off = [name for name in group.options if self._values.get(name, NO) == NO]
        text += ", which this kernel leaves out" if off else ", which this kernel has as a module"
        if lines is None:
            return f"{text}; nothing switches it on there"
        own = [name for name in group.options if name in lines]
        other = [f"CONFIG_{name}" if level else f"no CONFIG_{name}" for name, level in lines.items()]
        other = [name for name in other if name.removeprefix("CONFIG_") not in own]
        if not own and other:
            hidden = not any(
                entry.prompt for name in group.options for entry in self.tree.entries.get(name, ())
            )
            text += "; it has no prompt, and" if hidden else "; it"
            return f"{text} comes with {' and '.join(other)}"
        return f"{text}; it needs {' and '.join(other)}" if other else text

    def _there(self, one: Missed, place: Place) -> str:
        if one.kind is not Kind.SYMBOL:
            return f"{place.file} declares {one.text}: does the module include it?"
        if self._values.get("TRIM_UNUSED_KSYMS"):
            return (
                f"{place.file} exports {one.name}, and this kernel drops exports that nothing in it uses: "
                "it needs `-d TRIM_UNUSED_KSYMS`"
            )
        if Unknown() in (place.condition, *parts_of(place.condition)):
            return f"{place.file} exports {one.name}, under conditions that quizmatrix cannot read"
        return f"{place.file} exports {one.name}, and this kernel has it: is its build tree whole?"

    async def _nowhere(self, one: Missed) -> str:
        if one.kind is Kind.MEMBER:
            structs, _ = await self._source.members(one.struct, one.name)
            known = f"struct {one.struct} ({structs[0].file})" if structs else f"struct {one.struct}"
            return f"{known} has no {one.name} in {self._version}: it is of another kernel, or a slip"
        if one.kind is not Kind.SYMBOL:
            return (
                f"no header of {self._version} declares {one.text}: it is of another kernel, the "
                "module's own, or a slip"
            )
        defined = (await self._source.definitions([one.name]))[one.name]
        places = [place for place in defined if place.file.endswith((".c", ".S"))]
        if places:
            return f"{places[0].file} defines {one.name}, and {self._version} exports it to no module"
        return f"nothing in {self._version} exports {one.name}"

    def _header(self, name: str) -> str:
        there = self._source.headers_named(name)
        own = [path for path in there if path.startswith(("include/", f"arch/{self._source.srcarch}/"))]
        if own:
            return f"{own[0]} is there: does the module's makefile change the include path?"
        if there:
            others = sorted({path.split("/")[1] for path in there})
            return f"<{name}> is only for {', '.join(others)}, and not for {self._arch}"
        return (
            f"{self._version} has no <{name}>: it is of another kernel, or the module's own, and then its "
            "makefile says where (ccflags-y)"
        )


def _listed(words: list[str]) -> str:
    if len(words) <= _NAMED:
        return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return f"{', '.join(words[:_NAMED])} and {len(words) - _NAMED} more"


def option_words(lines: Values) -> list[str]:
    """The words of a command line for these lines: -e A,B -m C -d D."""
    found: list[str] = []
    for option, level in (("-e", YES), ("-m", MODULE), ("-d", NO)):
        some = [name for name, value in lines.items() if value == level]
        if some:
            found += [option, ",".join(some)]
    return found
