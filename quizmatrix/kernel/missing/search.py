"""Searches the source of a kernel for what exports or declares a name. grep(1) finds the files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import msgspec

from quizmatrix.core import process
from quizmatrix.core.concurrency import in_thread
from quizmatrix.kernel.missing import kbuild
from quizmatrix.kernel.missing.expression import Constant, Expression, Unknown, both
from quizmatrix.kernel.missing.preprocessor import lines_with_conditions, members_with_conditions

# Folders at the top of a source that are no part of a kernel, and `arch`, of which one folder is.
_LEFT_OUT = frozenset({"Documentation", "LICENSES", "arch", "debian", "samples", "scripts", "tools", "usr"})
_SOURCES = ("*.c", "*.h", "*.S")
# grep(1) prints no more files than a person's error can be about.
_MAX_FILES = 400

# What macros make of the name that is exported: include/linux/tracepoint.h, static_call.h.
_MADE_NAMES = re.compile(
    r"(?:__tracepoint_|__traceiter_|__SCK__tp_func_|__SCT__tp_func_|__SCK__|__SCT__)(\w+)"
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the source that exports, defines or declares a name, and the condition for it to count.

    file: relative to the source. line: its text.
    """

    file: str
    line: str
    condition: Expression


Places: TypeAlias = dict[str, list[Place]]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The source of a kernel. srcarch: the architecture's folder below arch/."""

    tree: Path
    srcarch: str

    async def exports(self, names: Iterable[str]) -> Places:
        """For each name, the places that export it to modules."""
        bare = {name: (match[1] if (match := _MADE_NAMES.fullmatch(name)) else name) for name in names}
        both_names = {*bare, *bare.values()}
        pattern = re.compile(rf"EXPORT_[A-Z_]*\(\s*({'|'.join(sorted(both_names))})\s*[,)]")
        exporters = await self._exporters()
        files = sorted({file for name in both_names for file in exporters.get(name, ())})
        found = await in_thread(lambda: self._read(files, pattern, self._compiled))
        return {name: found.get(name) or found.get(short, []) for name, short in bare.items()}

    async def definitions(self, names: Iterable[str]) -> Places:
        """For each name of a function, the places that define it."""
        pattern = rf"^[A-Za-z_][^;=]*\b({'|'.join(sorted(names))})\([^;]*$"
        files = await self._files(pattern, self._folders())
        found = await in_thread(lambda: self._read(files, re.compile(pattern), self._compiled))
        return {name: found.get(name, []) for name in names}

    async def declarations(self, names: Iterable[str]) -> Places:
        """For each name of a function, a type, a macro or a constant, the headers that declare it."""
        either = "|".join(sorted(names))
        files = await self._files(rf"\b({either})\b", self._headers())
        # Declarations begin at the line's start, other uses are indented; but for constants of an enum.
        pattern = re.compile(
            rf"^(?:#\s*define\s+|DECLARE_\w+\(.*|[A-Za-z_}}][^=(]*)?(?<!struct )(?<!union )\b({either})\b"
            rf"|^\s+({either})\s*(?:=|,|$|/\*)"
        )
        found = await in_thread(lambda: self._read(files, pattern, self._always))
        return {name: found.get(name, []) for name in names}

    async def members(self, struct: str, member: str) -> tuple[list[Place], list[Place]]:
        """The places that declare `struct`, and those that declare its member."""
        files = await self._files(rf"^(typedef +)?(struct|union) +{struct} *\{{", self._headers())
        structs, members = [], []
        for file in files:
            for line, condition in members_with_conditions(self._text(file), struct):
                place = Place(file=file, line=line, condition=condition)
                structs.append(place)
                if re.search(rf"\b{member}\b\s*(?:[;,:\[)]|$)", line):
                    members.append(place)
        return structs, members

    def headers_named(self, name: str) -> list[str]:
        """The headers that `#include <NAME>` may mean, of any architecture."""
        if ".." in Path(name).parts or name.startswith("/"):
            return []
        folders = [self.tree / "include", *sorted(self.tree.glob("arch/*/include"))]
        there = [folder / sub / name for folder in folders for sub in ("", "uapi", "generated")]
        return [str(path.relative_to(self.tree)) for path in there if path.is_file()]

    async def _exporters(self) -> dict[str, set[str]]:
        """For each name that the source exports, the files that do; searched once for all modules."""
        if self not in _EXPORTERS:
            found: dict[str, set[str]] = {}
            for line in await self._grep("-roE", r"EXPORT_[A-Z_]*\( *\w+", self._folders()):
                file, _, export = line.partition(":")
                found.setdefault(export.rpartition("(")[2].strip(), set()).add(file)
            _EXPORTERS[self] = found
        return _EXPORTERS[self]

    async def _files(self, pattern: str, folders: list[str]) -> list[str]:
        return sorted(await self._grep("-rlE", pattern, folders))[:_MAX_FILES]

    async def _grep(self, options: str, pattern: str, folders: list[str]) -> list[str]:
        argv = ["grep", options, *(f"--include={name}" for name in _SOURCES), "-e", pattern, "--", *folders]
        done = await process.run(argv, cwd=self.tree)
        return done.output.decode(errors="replace").splitlines()

    def _folders(self) -> list[str]:
        inside = sorted(path.name for path in self.tree.iterdir() if path.is_dir())
        return [name for name in inside if name not in _LEFT_OUT] + [f"arch/{self.srcarch}"]

    def _headers(self) -> list[str]:
        return ["include", f"arch/{self.srcarch}/include"]

    def _text(self, file: str) -> str:
        return (self.tree / file).read_text(encoding="utf-8", errors="replace")

    def _read(
        self, files: list[str], pattern: re.Pattern[str], condition_of: Callable[[str], Expression]
    ) -> Places:
        """The lines of these files that the pattern fits, by the name in its first group that does."""
        found: Places = {}
        for file in files:
            whole: Expression | None = None
            for line, condition in lines_with_conditions(self._text(file)):
                match = pattern.search(line)
                if match is None:
                    continue
                whole = condition_of(file) if whole is None else whole
                name = next(filter(None, match.groups()))
                place = Place(file=file, line=line.strip(), condition=both(whole, condition))
                found.setdefault(name, []).append(place)
        return found

    def _compiled(self, file: str) -> Expression:
        return kbuild.condition_of(self.tree, file, self.srcarch) or Unknown()

    def _always(self, _file: str) -> Expression:
        return Constant(2)


# Of each source, what `_exporters` found.
_EXPORTERS: dict[Source, dict[str, set[str]]] = {}
