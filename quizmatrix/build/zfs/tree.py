"""An OpenZFS work tree: reads its META file, and runs autogen.sh where needed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.build.parts import STAYS
from quizmatrix.core import paths, process
from quizmatrix.core.buildstep import BuildStep
from quizmatrix.core.errors import UnpreparedError, UsageError
from quizmatrix.core.process import Tell
from quizmatrix.core.store import Store
from quizmatrix.core.version import KernelVersion
from quizmatrix.prepare import worktree

# The programs that autogen.sh runs, and their Debian packages.
_AUTOGEN_TOOLS = {"autoreconf": "autoconf", "automake": "automake", "libtoolize": "libtool"}


_FOLDER = "zfs"
# Beside the builds: the path of the tree that was built last.
LAST = "last-tree"


class ZfsTree(msgspec.Struct, frozen=True, kw_only=True):
    """A work tree of OpenZFS. newest_kernel, oldest_kernel: META's Linux-Maximum and Linux-Minimum."""

    path: Path
    version: str
    newest_kernel: KernelVersion | None
    oldest_kernel: KernelVersion | None = None

    @property
    def mark(self) -> str:
        """The tree's name in the cache: its folder's name, and a hash of its path."""
        return paths.cache_name(self.path)

    @property
    def work(self) -> Path:
        """The folder of all builds of the tree."""
        return self.store.root

    @property
    def store(self) -> Store:
        """The store of the tree's installed layers."""
        return Store(
            what="OpenZFS",
            folder=f"{_FOLDER}/{self.mark}",
            place="layers/{}",
            reference="{}/quizmatrix.installed",
            lock=f"zfs-{self.mark}-{{}}",
            stays=STAYS,
        )

    def head(self) -> str:
        """The branch and the commit that are checked out, `main 1a2b3c4d5e6f`; empty without git."""
        if not (self.path / ".git").exists():
            return ""  # git would look for a repository above it
        git = ["git", "-C", str(self.path)]
        branch = process.run_blocking([*git, "symbolic-ref", "--short", "--quiet", "HEAD"])
        commit = process.run_blocking([*git, "rev-parse", "--short=12", "--verify", "--quiet", "HEAD"])
        return " ".join([*branch.output.decode(errors="replace").split(), *commit.output.decode().split()])


def zfs_dir() -> Path:
    """The folder where OpenZFS is built; each tree has its own folder there."""
    return paths.cache_dir() / _FOLDER


def find_tree(asked: str | None) -> ZfsTree:
    """The tree in the folder `asked`; by default in the current folder or one above it.

    Raises UsageError where there is none.
    """
    start = Path(asked or ".").resolve()
    path = worktree.tree_around(start)
    if path is not None and (path == start or not asked):
        fields = worktree.meta_of(path)
        maximum, minimum = fields.get("Linux-Maximum"), fields.get("Linux-Minimum")
        return ZfsTree(
            path=path,
            version=fields.get("Version", "unknown"),
            newest_kernel=KernelVersion(maximum) if maximum else None,
            oldest_kernel=KernelVersion(minimum) if minimum else None,
        )
    raise UsageError(
        f"{start} is no OpenZFS work tree",
        cause="there is no META that says `Name: zfs`",
        next_step="Go to one, or name it: --source DIR. `apt-get source zfs-linux` gets one.",
    )


def last_tree() -> ZfsTree:
    """The tree around the current folder, else the one that was built last. Raises UsageError without one."""
    try:
        return find_tree(None)
    except UsageError:
        try:
            last = (zfs_dir() / LAST).read_text()
        except OSError:
            last = ""
        if not last:
            raise
        return find_tree(last)


async def make_ready(tree: ZfsTree, tell: Tell) -> None:
    """Run autogen.sh where `configure` is missing or older than its sources.

    Raises UnpreparedError where the tree was configured in place or autogen.sh fails, HostError where its
    tools are missing.
    """
    if (tree.path / "config.status").exists():
        raise UnpreparedError(
            f"{tree.path} was configured in place",
            cause="a build beside it would find the headers of that one",
            next_step="Run `make distclean` in it, or name another tree.",
        )
    async with paths.locked(paths.lock_file(f"zfs-{tree.mark}"), lambda: tell("waiting for another build")):
        if not _is_autogen_due(tree.path):
            return
        for tool, package in _AUTOGEN_TOOLS.items():
            process.require_program(tool, package)
        tell(f"running {tree.path}/autogen.sh")
        step = BuildStep(fact=f"{tree.path}/autogen.sh failed", folder=tree.path)
        await step.run(["sh", "./autogen.sh"])


def _is_autogen_due(path: Path) -> bool:
    try:
        made = (path / "configure").stat().st_mtime
    except OSError:
        return True
    # make(1) would not notice: OpenZFS switches the rules for that off (AM_MAINTAINER_MODE).
    sources = (path / "configure.ac", path / "META", *path.glob("config/*.m4"), *path.rglob("*.am"))
    return any(source.stat().st_mtime > made for source in sources)
