"""The options of `quizmatrix run` as data.

Each field has the name of its option: `boot_timeout` is --boot-timeout. Texts are unparsed, as typed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from quizmatrix.model.finding import SplatPolicy
from quizmatrix.model.matrix import Limits

# The value of `shard` for a number that depends on the host.
AUTO: Final = "auto"


class SelectionOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which cells are run: a field for each option.

    matrix: a file, or the name of a shipped matrix; None means `default`.
    only, skip: globs.
    source: the source of kernels that name none.
    enable, disable, module: symbols of the kernels' configuration that are to be y, n or m.
    shard: the number of parts that each cell's tests are split into; AUTO: as many as the host can hold.
    shard_like: the run whose parts these are to be.
    no_provide: take nothing because the command needs it.
    """

    matrix: str | None = None
    only: list[str] = []
    skip: list[str] = []
    kernels: list[str] = []
    arches: list[str] = []
    source: str | None = None
    profiles: list[str] = []
    enable: list[str] = []
    disable: list[str] = []
    module: list[str] = []
    shard: int | Literal["auto"] = 1
    shard_like: str | None = None
    no_provide: bool = False


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits that take precedence over the matrix's; see Limits. ValueError if one is invalid.

    append: each time kernel parameters, as they were given.
    """

    timeout: str | None = None
    boot_timeout: str | None = None
    memory: str | None = None
    shared_limit: str | None = None
    cpus: int | None = None
    image: str | None = None
    splat: SplatPolicy | None = None
    append: list[str] = []
    numa: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a limit is invalid."""
        self.as_limits()

    def as_limits(self) -> Limits:
        """The same, as a table of the matrix has them."""
        given = msgspec.structs.asdict(self) | {"append": " ".join(self.append) or None}
        return Limits(**given)


class GuestOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The guest's machine, and what its command gets.

    stdin: a file, `-` for our stdin, or /dev/null (--no-stdin); None: our stdin, if there is only one cell.
    accel: auto, kvm or tcg.
    cold, warm: boot every guest, or restore every guest from a template.
    qemu: additional arguments for QEMU.
    layer: folders laid over the guest's root.
    bind: HOST:GUEST[:ro].
    env: NAME=VALUE, or NAME for a variable of our environment.
    on_timeout: what becomes of the memory of a guest whose command outlives its limit.
    """

    stdin: str | None = None
    accel: str = "auto"
    cold: bool = False
    warm: bool = False
    machine: str | None = None
    qemu: list[str] = []
    layer: list[str] = []
    bind: list[str] = []
    env: list[str] = []
    user: str | None = None
    no_work_tree: bool = False
    on_timeout: Literal["end", "dump"] = "end"


class ConductOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the cells are run. jobs: VMs at the same time. max_time: a duration, for the whole run.

    rerun_failed: how often tests that failed are run once more.
    """

    jobs: int | None = None
    max_time: str | None = None
    retries: int = 0
    rerun_failed: int = 0
    fail_fast: bool = False
    build: bool = False
    offline: bool = False
    refresh: bool = False


class HostOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Other hosts that run the cells. on: where they are; None: this host does.

    certificates: the folder of those that they know this host by. whole_tree: they get what git ignores in
    the current folder, too. store: a folder or a URL with artifacts that all hosts reach. build_on: where
    kernels are built; None: here.
    """

    on: str | None = None
    certificates: str | None = None
    whole_tree: bool = False
    store: str | None = None
    build_on: Literal["workers"] | None = None


class OnceOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options that a repetition of the run does not inherit. resume: the run to continue."""

    last_failed: bool = False
    failed_first: bool = False
    resume: str | None = None
    shell: bool = False
    dry_run: bool = False


# The options below that are reports. Each names a file, or `-` for stdout.
REPORTS = ("json", "junit", "markdown", "html")


class ResultOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run prints and writes.

    output: the run directory. coverage: the folder for the page of lines that ran. fail_on: any, or
    regression. on_finish: a script for sh.
    """

    output: str | None = None
    coverage: str | None = None
    json: str | None = None
    junit: str | None = None
    markdown: str | None = None
    html: str | None = None
    fail_on: str = "any"
    on_finish: str | None = None
    quiet: bool = False
    verbose: bool = False

    @property
    def counts_only_regressions(self) -> bool:
        """Whether only regressions make the run fail."""
        return self.fail_on == "regression"

    @property
    def compares_with_last(self) -> bool:
        """Whether the run is compared with the last one of its kind."""
        return self.quiet or self.counts_only_regressions


class RunOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All options of a run (the key `options` of results.json)."""

    selection: SelectionOptions = SelectionOptions()
    limits: LimitOptions = LimitOptions()
    guest: GuestOptions = GuestOptions()
    conduct: ConductOptions = ConductOptions()
    hosts: HostOptions = HostOptions()
    once: OnceOptions = OnceOptions()
    results: ResultOptions = ResultOptions()

    def taking(self, other: RunOptions, names: Collection[str]) -> RunOptions:
        """These options, but those in `names` with the values of `other`."""
        return with_values(self, {name: value for name, value in other.values() if name in names})

    def values(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each option."""
        for part in self.__struct_fields__:
            for name in getattr(self, part).__struct_fields__:
                yield name, getattr(getattr(self, part), name)

    def words(self) -> list[str]:
        """The command-line words for these options, without MATRIX; defaults are left out."""
        words: list[str] = []
        for (name, value), (_, default) in zip(self.values(), RunOptions().values(), strict=True):
            option = f"--{name.replace('_', '-')}"
            if name in _NO_OPTIONS or value == default:
                continue
            if name == "stdin" and value == os.devnull:
                words.append("--no-stdin")
            elif value is True:
                words.append(option)
            else:
                for text in map(str, value if isinstance(value, list) else [value]):
                    # A separate word that begins with a dash would be taken for an option.
                    words += [f"{option}={text}"] if text.startswith("-") else [option, text]
        return words


# Fields without an option of that name: MATRIX is positional; `splat` is a key of matrices only, but a
# program may set it here.
_NO_OPTIONS = frozenset({"matrix", "splat"})
NAMES_OF = {
    part: frozenset(getattr(RunOptions(), part).__struct_fields__) for part in RunOptions.__struct_fields__
}
NAMES = frozenset().union(*NAMES_OF.values())


def with_values(options: RunOptions, values: Mapping[str, Any]) -> RunOptions:
    """`options` with new values for some names; ValueError if a limit is invalid."""
    parts = {
        part: msgspec.structs.replace(
            getattr(options, part), **{name: values[name] for name in names if name in values}
        )
        for part, names in NAMES_OF.items()
    }
    return msgspec.structs.replace(options, **parts)


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a run.

    command: None if there is none, because the matrix has its own commands.
    arguments: the command line without the command, for results.json.
    typed: the names of the options that were given, even with their default values.
    repeated: the options of the run that this one repeats. results.json has these: what is typed with
    --last-failed holds for one run only.
    unattended: nobody reads the output or types.
    """

    options: RunOptions = RunOptions()
    command: list[str] | None = None
    arguments: list[str] = []
    typed: frozenset[str] = frozenset()
    repeated: RunOptions | None = None
    unattended: bool = False
