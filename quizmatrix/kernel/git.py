"""The kernel source `git`: a commit of a local or remote repository; the repository is never written to.

Each repository has one work tree in the cache. Before a build the wanted commit is checked out there, so that
make compiles only what differs from the commit before, as in a bisection.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from quizmatrix.core import process
from quizmatrix.core.errors import NotFetchedError, UnpreparedError, UsageError, host_error
from quizmatrix.core.process import Tell
from quizmatrix.core.store import key_of
from quizmatrix.core.version import KernelVersion
from quizmatrix.kernel import build
from quizmatrix.kernel.kernelsource import KernelSource
from quizmatrix.kernel.order import Order
from quizmatrix.kernel.tree import SOURCE_TREES, KernelTree, absolute, version_of_makefile
from quizmatrix.model.arch import Arch

# Variables of the environment that git needs for ssh.
_SSH = ("SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND")

# git gives up a server that sends nothing for two minutes; any git command is killed after _LIMIT seconds.
_NO_STANDSTILL = ("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=120")
_LIMIT = 3600.0

# How a repository on another host begins: `https://`, `git@host:`.
_ELSEWHERE = re.compile(r"\w+://|[\w.@-]+:")


def check(wanted: str) -> str:
    """Check PATH-OR-URL#REF, and make a path absolute. Raises ValueError where it is no folder."""
    if not is_local(wanted):
        return wanted
    place, ref = _split(wanted)
    folder = absolute(place)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    return f"{folder}#{ref}"


def is_local(wanted: str) -> bool:
    """Whether the repository is on this host."""
    return _ELSEWHERE.match(wanted) is None


def _split(wanted: str) -> tuple[str, str]:
    place, _, ref = wanted.partition("#")
    return place, ref or "HEAD"


def recipe(wanted: str, arch: Arch) -> str:
    """A text that names all that a build depends on; with the commit of REF, if the repository is local."""
    here = build.recipe(wanted, arch)
    return f"{here} {_commit_here(*_split(wanted))}" if is_local(wanted) else here


def _commit_here(place: str, ref: str) -> str:
    """The commit that `ref` names in a local repository; empty where there is none."""
    argv = ["git", "-C", place, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"]
    return process.run_blocking(argv).output.decode().strip()


async def released(one: str, other: str, _arch: Arch, tell: Tell) -> dict[KernelVersion, str]:
    """The tags of a repository that are releases (`v6.12`, `v6.12.5`), by their versions.

    Raises UsageError where the two kernels are in different repositories.
    """
    place, _ = _split(one)
    if _split(other)[0] != place:
        raise UsageError(f"{one} and {other} are of two repositories", next_step="Name two tags of one.")
    tell(f"asking {place}")
    lines = (
        await _git(SOURCE_TREES.root, "ls-remote", "--tags", "--refs", "--end-of-options", place)
    ).splitlines()
    tags = [line.rpartition("refs/tags/")[2] for line in lines]
    return {KernelVersion(tag): f"{place}#{tag}" for tag in tags if re.fullmatch(r"v\d+\.\d+(\.\d+)?", tag)}


async def fetch(wanted: str, order: Order) -> str:
    """Build the kernel of a commit, unless the cache has it; returns its key.

    Raises NotFetchedError where the commit cannot be fetched, UnpreparedError where it is no kernel source or
    cannot be built.
    """
    process.require_program("git", "git")
    place, ref = _split(wanted)
    here = is_local(wanted)
    work = SOURCE_TREES.root / f"git-{key_of([_place_of(place, here)])}"
    waiting = SOURCE_TREES.locked(
        work.name, lambda: order.tell("waiting for another that reads the repository")
    )
    async with order.fetching, waiting:
        try:
            await _git(work, "init", "--quiet", str(work))
            commit = await (_borrow(work, place, ref) if here else _fetch_from(work, place, ref, order))
        except OSError as error:
            raise host_error(f"read {place}", error) from error
        makefile = await process.run(["git", "-C", str(work), "show", f"{commit}:Makefile"])
        try:
            version = version_of_makefile(makefile.output.decode(errors="replace")[:4096], wanted)
        except ValueError as error:
            raise UnpreparedError(str(error)) from error
        tree = await _git(work, "rev-parse", f"{commit}^{{tree}}")

    async def check_out() -> None:
        # A killed git may have left this lock; no other git runs here, since builds hold a lock of their own.
        (work / ".git/index.lock").unlink(missing_ok=True)
        await _git(work, "checkout", "--quiet", "--force", "--detach", commit)
        await _git(work, "clean", "-qfdx")

    async def defined(symbols: list[str]) -> set[str]:
        found = await _defined(work, commit, r"\w+", "*Kconfig*")
        missing = [symbol for symbol in symbols if symbol not in found]
        # A Kconfig file may include a file with any name.
        return found | await _defined(work, commit, "|".join(missing)) if missing else found

    return await build.build(
        KernelTree(
            path=work,
            version=version,
            key=tree,
            origin=f"{place} {commit[:12]}",
            work=build.shared_build_folder(work, order),
            check_out=check_out,
            defined=defined,
        ),
        order,
    )


async def _defined(work: Path, commit: str, symbols: str, *files: str) -> set[str]:
    """The Kconfig symbols that files of a commit define. symbols: a pattern."""
    pattern = rf"^(menu)?config[[:space:]]+({symbols})[[:space:]]*$"
    # git-grep(1) exits with 1 if it finds nothing, so the exit status is not checked.
    argv = ["git", "-C", str(work), "grep", "-hE", "-e", pattern, commit, "--", *files]
    lines = (await process.run(argv)).output.decode(errors="replace").splitlines()
    return {line.split()[-1] for line in lines}


def _place_of(place: str, here: bool) -> str:
    return str(Path(place).resolve()) if here else place


async def _borrow(work: Path, place: str, ref: str) -> str:
    """Let the work tree use a local repository's objects (gitrepository-layout(5)); returns the commit."""
    commit = _commit_here(place, ref)
    if not commit:
        asked = process.run_blocking(["git", "-C", place, "rev-parse", "--git-dir"])
        raise NotFetchedError(
            f"{place} has no commit `{ref}`",
            cause=asked.last_words if asked.status else "",
            next_step="A branch, a tag or a commit's hash goes behind the #.",
        )
    objects = await _git(Path(place), "rev-parse", "--path-format=absolute", "--git-path", "objects")
    (work / ".git/objects/info").mkdir(parents=True, exist_ok=True)
    (work / ".git/objects/info/alternates").write_text(f"{objects}\n")
    return commit


async def _fetch_from(work: Path, url: str, ref: str, order: Order) -> str:
    """Fetch one commit from another host, without its history; returns the commit."""
    order.tell(f"fetching {ref} from {url}")
    # A killed git may have left this lock; no other git runs here, since the work tree is locked.
    (work / ".git/shallow.lock").unlink(missing_ok=True)
    await _git(work, "fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", url, ref)
    return await _git(work, "rev-parse", "FETCH_HEAD")


async def _git(place: Path, *words: str) -> str:
    """Run git in `place`; returns its output. Raises NotFetchedError where it fails."""
    place.mkdir(parents=True, exist_ok=True)
    env = {name: os.environ[name] for name in _SSH if name in os.environ}
    # git must fail instead of asking for a password.
    env["GIT_TERMINAL_PROMPT"] = "0"
    done = await process.run(["git", "-C", str(place), *_NO_STANDSTILL, *words], env=env, limit=_LIMIT)
    if done.status != 0:
        raise NotFetchedError(
            f"git {words[0]} failed",
            cause=done.last_words,
            next_step="Is the address right, and can you reach it with git?",
        )
    return done.output.decode().strip()


SOURCE = KernelSource(
    check=check,
    recipe=recipe,
    fetch=fetch,
    is_local=is_local,
    released=released,
    example="Write git:FOLDER#REF or git:URL#REF; REF is a branch, a tag or a commit.",
)
