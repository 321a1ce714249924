"""Calls OpenZFS's zfs-tests.sh with a share of the tests: shard QUIZMATRIX_SHARD of QUIZMATRIX_SHARDS.

The share is written to a run file (an INI file whose sections are folders of tests, with what has to run
before and after them). Every test is in exactly one shard, the first being 1; a section whose tests are in
several is in each of those with all of its setup and cleanup. The same arguments give the same shards in
every guest.

Runs in the guest, with nothing but Python's standard library (3.10 or later).
"""

from __future__ import annotations

import ast
import configparser
import getopt
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

DEFAULT_RUNFILES = "common.run,linux.run"
DEFAULT_TAGS = "functional"
# Of the version 2.4; the script at hand is asked for its own.
OPTIONS = "hvqxkKfScRmOn:d:Ds:r:?t:T:u:I:"

# A share of the tags themselves, as 1/3, is zfs-tests.sh's own affair.
_FRACTION = re.compile(r"\d+/\d+")


class ShardError(Exception):
    """The tests cannot be dealt."""


@dataclass(frozen=True)
class Piece:
    """Tests of one section that stay together. tests: None for a section that is one test itself."""

    section: str
    tests: tuple[str, ...] | None

    @property
    def weight(self) -> int:
        """How many tests it is."""
        return 1 if self.tests is None else len(self.tests)


def read_runfiles(paths: list[Path]) -> configparser.RawConfigParser:
    """The run files as one, as OpenZFS's test runner joins them."""
    config = configparser.RawConfigParser()
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                config.read_file(file)
        except (OSError, configparser.Error) as error:
            raise ShardError(f"{path}: {error}") from error
    return config


def _list_of(config: configparser.RawConfigParser, section: str, option: str) -> tuple[str, ...]:
    try:
        words = ast.literal_eval(config.get(section, option))
    except (SyntaxError, ValueError) as error:
        raise ShardError(f"[{section}] {option}: {error}") from error
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ShardError(f"[{section}] {option} is no list of names")
    return tuple(words)


def select(config: configparser.RawConfigParser, tags: set[str] | None) -> list[Piece]:
    """The sections with one of `tags`, whole; all where None. A test that is listed twice counts once."""
    found = []
    for section in config.sections():
        own = _list_of(config, section, "tags") if config.has_option(section, "tags") else None
        if tags is not None and own is not None and tags.isdisjoint(own):
            continue
        if config.has_option(section, "tests"):
            tests = tuple(dict.fromkeys(_list_of(config, section, "tests")))
            if tests:
                found.append(Piece(section, tests))
        else:
            found.append(Piece(section, None))
    return found


def deal(pieces: list[Piece], shards: int) -> list[list[Piece]]:
    """Shards of about as many tests each. A section is split only where it is larger than a shard."""
    fair = -(-sum(piece.weight for piece in pieces) // shards)
    parts: list[Piece] = []
    for piece in pieces:
        if piece.tests is None or piece.weight <= fair:
            parts.append(piece)
            continue
        count = -(-piece.weight // fair)
        ends = [piece.weight * number // count for number in range(count + 1)]
        parts += [Piece(piece.section, piece.tests[start:end]) for start, end in pairwise(ends)]
    dealt: list[list[Piece]] = [[] for _ in range(shards)]
    loads = [0] * shards
    # The largest first, each to the shard that has least; sorted() keeps the order of equals.
    for part in sorted(parts, key=lambda part: -part.weight):
        lightest = loads.index(min(loads))
        dealt[lightest].append(part)
        loads[lightest] += part.weight
    return dealt


def slice_of(config: configparser.RawConfigParser, pieces: list[Piece]) -> configparser.RawConfigParser:
    """A run file of these pieces, with all else that their sections and the defaults say."""
    tests: dict[str, list[str] | None] = {}
    for piece in pieces:
        if piece.tests is None:
            tests[piece.section] = None
        else:
            tests[piece.section] = [*(tests.get(piece.section) or []), *piece.tests]
    made = configparser.RawConfigParser()
    made.read_dict({config.default_section: config.defaults()})
    for section in config.sections():
        if section not in tests:
            continue
        made.add_section(section)
        for option, value in config.items(section):
            if config.defaults().get(option) != value:
                made.set(section, option, value)
        names = tests[section]
        if names is not None:
            made.set(section, "tests", repr(names))
    return made


def find_runfile(name: str, folder: Path) -> Path:
    """Where zfs-tests.sh would find it."""
    for path in (folder / name, folder / f"{name}.run", Path(name), Path(f"{name}.run")):
        if path.is_file():
            return path
    raise ShardError(f"there is no run file {name}")


def single_tests(names: list[str], user: str, suite: Path) -> configparser.RawConfigParser:
    """A run file for -t: tests by their path below the suite, or by the beginning of their name."""
    config = configparser.RawConfigParser()
    config.read_dict({config.default_section: {"user": user, "pre_user": "root", "post_user": "root"}})
    config.set(config.default_section, "timeout", "600")
    config.set(config.default_section, "quiet", "False")
    for name in names:
        path = suite / name
        if "/" not in name:
            found = sorted(path for path in suite.rglob(f"{name}*") if path.is_file())
            if not found:
                raise ShardError(f"there is no test {name}")
            path = found[0]
        section = str(path.parent)
        if not config.has_section(section):
            config.add_section(section)
            for option, script in (("pre", "setup"), ("post", "cleanup")):
                there = os.access(path.parent / f"{script}.ksh", os.X_OK)
                config.set(section, option, script if there else "")
            config.set(section, "tags", repr([DEFAULT_TAGS]))
            config.set(section, "tests", "[]")
        tests = [*_list_of(config, section, "tests"), path.name]
        config.set(section, "tests", repr(tests))
    return config


def options_of(script: Path) -> str:
    """The options that zfs-tests.sh takes, in getopts' language."""
    match = re.search(r"getopts\s+'([^']+)'", script.read_text(encoding="utf-8", errors="replace"))
    return match[1] if match else OPTIONS


def plan(
    script: Path, arguments: list[str], shard: int, shards: int, runfiles: str = DEFAULT_RUNFILES
) -> tuple[configparser.RawConfigParser, list[str], int, int]:
    """The shard's run file, the arguments that remain, how many tests are in it and how many in all.

    runfiles: those that are run unless the arguments name some. Raises ShardError, and getopt.GetoptError
    where the arguments are none of zfs-tests.sh's.
    """
    given, rest = getopt.getopt(arguments, options_of(script))
    folder = script.parent
    kept: list[str] = []
    names: list[str] = []
    user, tags = "root", DEFAULT_TAGS
    for option, value in given:
        if option == "-r":
            runfiles = value
        elif option == "-t":
            names += [name for name in value.split(",") if name]
        else:
            kept += [option, value] if value else [option]
            user = value if option == "-u" else user
            tags = value if option == "-T" else tags
    if names:
        config = single_tests(names, user, folder / "zfs-tests")
    else:
        words = [word for word in runfiles.split(",") if word]
        config = read_runfiles([find_runfile(word, folder / "runfiles") for word in words])
    wanted = {tag.strip() for tag in tags.split(",")}
    dealt = deal(select(config, None if _FRACTION.fullmatch(tags) else wanted), shards)
    counts = [sum(piece.weight for piece in pieces) for pieces in dealt]
    return slice_of(config, dealt[shard - 1]), [*kept, "--", *rest], counts[shard - 1], sum(counts)


def main() -> None:
    """What the module says. Exits with 1 where there is no test at all, 2 where it cannot be done."""
    script, arguments = Path(sys.argv[1]), sys.argv[2:]
    try:
        shard, shards = (int(os.environ[name]) for name in ("QUIZMATRIX_SHARD", "QUIZMATRIX_SHARDS"))
        if not 1 <= shard <= shards:
            raise ShardError(f"there is no shard {shard} of {shards}")
        named = os.environ.get("RUNFILES") or DEFAULT_RUNFILES
        config, kept, count, total = plan(script, arguments, shard, shards, named)
    except getopt.GetoptError:
        # It says itself what is wrong.
        os.execv(script, [str(script), *arguments])  # noqa: S606
    except (KeyError, ValueError, ShardError) as error:
        sys.exit(f"zfs-tests.sh: {error}")
    if not total:
        print("zfs-tests.sh: no test is selected", file=sys.stderr)
        print("1..0")
        sys.exit(1)
    if not count:
        print(f"1..0 # SKIP shard {shard} of {shards}: there are only {total} tests")
        sys.exit(0)
    folder = os.environ.get("FILEDIR") or tempfile.gettempdir()
    path = Path(folder) / f"zfs-tests.shard-{shard}-of-{shards}.run"
    with path.open("w", encoding="utf-8") as file:
        config.write(file)
    print(f"# shard {shard} of {shards}: {count} of {total} tests", flush=True)
    os.execv(script, [str(script), "-r", str(path), *kept])  # noqa: S606


if __name__ == "__main__":
    main()
