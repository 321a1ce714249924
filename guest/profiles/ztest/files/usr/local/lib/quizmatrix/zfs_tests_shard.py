"""Calls OpenZFS's zfs-tests.sh with some of the tests: shard QUIZMATRIX_SHARD of QUIZMATRIX_SHARDS.

Of these, only those that QUIZMATRIX_TESTS_FILE lists, and none that QUIZMATRIX_SKIP_FILE does, where given.

The share is written to a run file (an INI file whose sections are folders of tests, with what has to run
before and after them). Every test is in exactly one shard, the first being 1; a section whose tests are in
several is in each of those with all of its setup and cleanup. The same arguments, and the same seconds in
QUIZMATRIX_SECONDS_FILE, give the same shards in every guest.

Runs in the guest, with nothing but Python's standard library (3.10 or later).
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import getopt
import math
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_RUNFILES = "common.run,linux.run"
DEFAULT_TAGS = "functional"
# Of the version 2.4; the script at hand is asked for its own.
OPTIONS = "hvqxkKfScRmOn:d:Ds:r:?t:T:u:I:"

# A share of the tags themselves, as 1/3.
_FRACTION = re.compile(r"(\d+)/(\d+)")


class ShardError(Exception):
    """The tests cannot be dealt."""


@dataclass(frozen=True)
class Piece:
    """Tests of one section that stay together. tests: None for a section that is one test itself.

    around: the scripts that run before and after them.
    """

    section: str
    tests: tuple[str, ...] | None
    around: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many tests it is."""
        return 1 if self.tests is None else len(self.tests)

    @property
    def folder(self) -> str:
        """The path of the section below the tests of the suite, as in the names of results.

        A section may have a mark behind it, as `tests/functional/acl:Linux`.
        """
        path = self.section.rpartition(":")[0] or self.section
        return path.partition("/zfs-tests/tests/")[2] or path.removeprefix("tests/")

    @property
    def names(self) -> list[str]:
        """The names of its tests in the results."""
        if self.tests is None:
            return [self.folder]
        return [self.name_of(test) for test in self.tests]

    def name_of(self, script: str) -> str:
        """The name of one of its tests, or of what runs around them, in the results."""
        return f"{self.folder}/{script}"


class Costs:
    """How long tests take: as they took last. One that never ran takes as long as the others on average.

    Without any known time each test costs the same, and what runs around them nothing.
    """

    # Seconds that the shortest test takes: the runner rounds them, and starts a test with sudo.
    LEAST = 0.5

    def __init__(self, seconds: dict[str, float]) -> None:
        """seconds: by the name of a test in the results."""
        self._seconds = seconds
        self._usual = max(self.LEAST, sum(seconds.values()) / len(seconds)) if seconds else 1.0

    def of_test(self, name: str) -> float:
        """Seconds that one test takes."""
        return max(self.LEAST, self._seconds[name]) if name in self._seconds else self._usual

    def around(self, piece: Piece) -> float:
        """Seconds that what runs before and after a piece takes."""
        return sum(self._seconds.get(piece.name_of(script), 0.0) for script in piece.around)

    def of(self, piece: Piece) -> float:
        """Seconds that a piece takes, with what runs around it."""
        return self.around(piece) + sum(map(self.of_test, piece.names))


def read_names(variable: str) -> set[str]:
    """The names of tests in the file that this variable of the environment names; none without it."""
    path = os.environ.get(variable)
    if path is None or not Path(path).is_file():
        return set()
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    return set(map(unmarked, lines))


def unmarked(name: str) -> str:
    """A name without a section's mark, which the runner puts behind it: `functional/acl/x (Linux)`."""
    return re.sub(r" \([^()]*\)$", "", name)


def choose(pieces: list[Piece], only: set[str], skip: set[str], lost: set[str]) -> list[Piece]:
    """The pieces with what is to run. lost: tests that ended their guest.

    only: empty for all. Where a section's setup or cleanup is to run, all of its tests are; where that ended
    the guest, none.
    """
    found = []
    for piece in pieces:
        around = set(map(piece.name_of, piece.around))
        if around & lost:
            continue
        scripts = piece.tests or (piece.section,)
        wanted = [
            script
            for script, name in zip(scripts, piece.names, strict=True)
            if name not in skip | lost and (not only or name in only or around & only)
        ]
        if wanted:
            found.append(Piece(piece.section, tuple(wanted) if piece.tests else None, piece.around))
    return found


def read_seconds(path: str | None) -> dict[str, float]:
    """How long tests took: lines `SECONDS NAME`. Nothing where there is no such file."""
    found = {}
    if path is not None and Path(path).is_file():
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            seconds, _, name = line.partition(" ")
            found[unmarked(name)] = float(seconds)
    return found


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


def tags_of(config: configparser.RawConfigParser, number: int, shares: int) -> list[str]:
    """A share of the tags, as zfs-tests.sh chooses them: by the last tag of each section (its split_tags)."""
    lasts = {_list_of(config, section, "tags")[-1] for section in config.sections()}
    names = [name for name in sorted(lasts) if "functional" not in name]
    return [name for place, name in enumerate(names, 1) if place % shares == number - 1]


def select(config: configparser.RawConfigParser, tags: set[str]) -> list[Piece]:
    """The sections with one of `tags`, whole. A test that is listed twice counts once."""
    found = []
    for section in config.sections():
        own = _list_of(config, section, "tags") if config.has_option(section, "tags") else None
        if own is not None and tags.isdisjoint(own):
            continue
        if config.has_option(section, "tests"):
            tests = tuple(dict.fromkeys(_list_of(config, section, "tests")))
            around = [config.get(section, option, fallback="") for option in ("pre", "post")]
            if tests:
                found.append(Piece(section, tests, tuple(filter(None, around))))
        else:
            found.append(Piece(section, None))
    return found


def deal(pieces: list[Piece], shards: int, costs: Costs) -> list[list[Piece]]:
    """Shards that take about as long each. A section is split only where it is longer than a shard."""
    fair = sum(map(costs.of, pieces)) / shards
    parts = [(costs.of(part), part) for piece in pieces for part in _split(piece, fair, costs)]
    dealt: list[list[Piece]] = [[] for _ in range(shards)]
    loads = [0.0] * shards
    # The longest first, each to the shard that has least; sorted() keeps the order of equals.
    for cost, part in sorted(parts, key=lambda part: -part[0]):
        lightest = loads.index(min(loads))
        dealt[lightest].append(part)
        loads[lightest] += cost
    return dealt


def _split(piece: Piece, fair: float, costs: Costs) -> list[Piece]:
    """The piece in parts that are no longer than `fair`, or one test each."""
    if piece.tests is None or costs.of(piece) <= fair:
        return [piece]
    whole = sum(map(costs.of_test, piece.names))
    usual = whole / len(piece.tests)
    # Whole tests, as many as a shard has room for; the parts are of equal length. The rest is for rounding.
    room = max(1, math.ceil((fair - costs.around(piece)) / usual - 1e-6))
    length = whole / math.ceil(len(piece.tests) / room)
    parts: list[list[str]] = [[]]
    spent = 0.0
    for test, name in zip(piece.tests, piece.names, strict=True):
        took = costs.of_test(name)
        # A test goes to the part that has its middle.
        if parts[-1] and spent + took / 2 > length * len(parts):
            parts.append([])
        parts[-1].append(test)
        spent += took
    return [Piece(piece.section, tuple(part), piece.around) for part in parts]


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
        # The command's folder may be one that its user may not enter.
        with contextlib.suppress(PermissionError):
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
    user, tags, has_tags = "root", DEFAULT_TAGS, False
    for option, value in given:
        if option == "-r":
            runfiles = value
        elif option == "-t":
            names += [name for name in value.split(",") if name]
        elif option == "-T":
            tags, has_tags = value, True
        else:
            kept += [option, value] if value else [option]
            user = value if option == "-u" else user
    if names:
        config = single_tests(names, user, folder / "zfs-tests")
    else:
        words = [word for word in runfiles.split(",") if word]
        config = read_runfiles([find_runfile(word, folder / "runfiles") for word in words])
    if fraction := _FRACTION.fullmatch(tags):
        # Not by zfs-tests.sh: it would take the share of what is left here.
        share = ",".join(tags_of(config, int(fraction[1]), int(fraction[2])))
        kept, tags = ["-T", share, *kept], share
    elif has_tags:
        kept = ["-T", tags, *kept]
    pieces = select(config, {tag.strip() for tag in tags.split(",")})
    dealt = deal(pieces, shards, Costs(read_seconds(os.environ.get("QUIZMATRIX_SECONDS_FILE"))))
    lists = (read_names(f"QUIZMATRIX_{name}_FILE") for name in ("TESTS", "SKIP", "LOST"))
    own = choose(dealt[shard - 1], *lists)
    total = sum(piece.count for piece in pieces)
    return slice_of(config, own), [*kept, "--", *rest], sum(piece.count for piece in own), total


def main() -> None:
    """What the module says. Exits with 1 where there is no test at all, 2 where it cannot be done."""
    script, arguments = Path(sys.argv[1]), sys.argv[2:]
    try:
        shard, shards = (int(os.environ.get(f"QUIZMATRIX_{name}") or 1) for name in ("SHARD", "SHARDS"))
        if not 1 <= shard <= shards:
            raise ShardError(f"there is no shard {shard} of {shards}")
        named = os.environ.get("RUNFILES") or DEFAULT_RUNFILES
        config, kept, count, total = plan(script, arguments, shard, shards, named)
    except getopt.GetoptError:
        # It says itself what is wrong.
        os.execv(script, [str(script), *arguments])  # noqa: S606
    except (ValueError, ShardError) as error:
        sys.exit(f"zfs-tests.sh: {error}")
    if not total:
        print("zfs-tests.sh: no test is selected", file=sys.stderr)
        print("1..0")
        sys.exit(1)
    if not count:
        print(f"1..0 # SKIP shard {shard} of {shards}: none of the {total} tests is left for it")
        sys.exit(0)
    folder = os.environ.get("FILEDIR") or tempfile.gettempdir()
    path = Path(folder) / f"zfs-tests.shard-{shard}-of-{shards}.run"
    with path.open("w", encoding="utf-8") as file:
        config.write(file)
    print(f"# shard {shard} of {shards}: {count} of {total} tests", flush=True)
    os.execv(script, [str(script), "-r", str(path), *kept])  # noqa: S606


if __name__ == "__main__":
    main()
