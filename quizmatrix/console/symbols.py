"""Finds the source line of `function+0xoffset/0xsize` in a kernel with debug information.

The kernel's scripts/decode_stacktrace.sh does the same for a person. nm finds the names, since the kernel
may have been moved in memory (KASLR); addr2line finds the lines. Where the cross compiler's tools are not
installed, the host's binutils are used: they read the DWARF of any architecture.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import anyio
import msgspec

from quizmatrix.console.fingerprint import RUNNING, SYMBOL
from quizmatrix.core import elf, process
from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model.finding import Finding

# Seconds that a cell's result waits for the source lines.
_LIMIT = 10.0
# The largest number of addresses that are looked up.
_MAX_ADDRESSES = 200
_TEXT_SYMBOL = re.compile(rb"^([0-9a-f]+) [tTwW] (\S+)$", re.MULTILINE)


async def decode(findings: list[Finding], vmlinux: Path, prefix: str) -> list[Finding]:
    """The findings with the source lines of the functions in their blocks, as far as time allows.

    prefix: of the cross compiler's tools. Functions of modules get no line. If the kernel has no debug
    information, or a tool is missing or fails, the findings are returned unchanged; nothing is raised.
    """
    wanted: dict[str, int] = {}
    for finding in findings:
        for line in finding.block:
            for match in SYMBOL.finditer(line):
                if match["module"] is None and len(wanted) < _MAX_ADDRESSES:
                    # A return address points behind the call, which may be in the next source line.
                    wanted.setdefault(match[0], 0 if RUNNING.match(line) else 1)
    if not wanted or not has_lines(vmlinux):
        return findings
    places: dict[str, str] = {}
    try:
        with anyio.move_on_after(_LIMIT):
            places = await _look_up(wanted, vmlinux, prefix)
    except QuizmatrixError:
        pass
    return [
        msgspec.structs.replace(
            finding,
            places={
                text: places[text]
                for line in finding.block
                for text in (match[0] for match in SYMBOL.finditer(line))
                if text in places
            },
        )
        for finding in findings
    ]


async def _look_up(wanted: dict[str, int], vmlinux: Path, prefix: str) -> dict[str, str]:
    names = await process.run([_tool(prefix, "nm"), "-n", str(vmlinux)])
    # In a thread: there are about a hundred thousand names.
    table = await in_thread(lambda: _addresses(names.output, set(wanted)))
    found = {text: table[text] - wanted[text] for text in wanted if text in table}
    if not found:
        return {}
    argv = [_tool(prefix, "addr2line"), "-e", str(vmlinux), *(f"{address:#x}" for address in found.values())]
    lines = (await process.run(argv)).output.decode(errors="replace").splitlines()
    roots = _roots(vmlinux.parent)
    places = {text: _place(line, roots) for text, line in zip(found, lines, strict=False)}
    return {text: place for text, place in places.items() if place}


def _tool(prefix: str, name: str) -> str:
    return process.find_program(prefix + name) or name


def _addresses(names: bytes, wanted: set[str]) -> dict[str, int]:
    """The addresses of `function+0xoffset/0xsize` texts, from nm's sorted output.

    If several functions have the name, the one with the right size is used, and none if several fit.
    """
    table = [(int(match[1], 16), match[2].decode(errors="replace")) for match in _TEXT_SYMBOL.finditer(names)]
    known = {text: match for text in wanted if (match := SYMBOL.fullmatch(text))}
    starts = sorted({address for address, _ in table})
    behind = dict(itertools.pairwise(starts))
    by_name: dict[str, list[int]] = {match["name"]: [] for match in known.values()}
    for address, name in table:
        if name in by_name:
            by_name[name].append(address)
    found: dict[str, int] = {}
    for text, match in known.items():
        at = by_name[match["name"]]
        if len(at) > 1:
            size = int(match["size"], 16)
            at = [address for address in at if behind.get(address, address) - address == size]
        if len(at) == 1:
            found[text] = at[0] + int(match["offset"], 16)
    return found


def _roots(build: Path) -> list[str]:
    """The prefixes that the compiler recorded before the names of source files."""
    folders = {os.path.realpath(build / "source"), os.path.realpath(build), str(build)}
    return sorted((f"{path}/" for path in folders), key=len, reverse=True)


def _place(line: str, roots: list[str]) -> str:
    """`fs/inode.c:123` from a line of addr2line; empty if addr2line does not know."""
    line = line.partition(" (discriminator")[0]
    file, _, number = line.rpartition(":")
    if not number.isdigit() or number == "0" or file.startswith("??"):
        return ""
    file = os.path.normpath(file)
    root = next((root for root in roots if file.startswith(root)), "")
    return f"{file.removeprefix(root)}:{number}"


def has_lines(vmlinux: Path) -> bool:
    """Whether a kernel has debug information with source lines."""
    return elf.has_section(vmlinux, ".debug_line")
