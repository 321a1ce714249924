"""The ./configure options of an OpenZFS tree, saved by `zfs configure` and used by later builds."""

from __future__ import annotations

import msgspec

from quizmatrix.build.zfs.tree import LAST, ZfsTree, zfs_dir
from quizmatrix.core import paths

# A file in a tree's folder of builds: the options of its last build.
_OPTIONS = "options.json"


class ZfsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a build of OpenZFS differs from the default.

    debug: with OpenZFS's assertions and debug symbols. experimental: also for kernels newer than META's
    Linux-Maximum. coverage: the modules count which of their lines run. configure: further arguments of
    ./configure.
    """

    debug: bool = False
    experimental: bool = False
    coverage: bool = False
    configure: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The arguments of ./configure for these options."""
        debug = ["--enable-debug", "--enable-debuginfo"] if self.debug else []
        return [*debug, *(["--enable-linux-experimental"] if self.experimental else []), *self.configure]


def remember(tree: ZfsTree, options: ZfsOptions) -> None:
    """Save the options for later steps and for the builds of `run --build`."""
    tree.work.mkdir(parents=True, exist_ok=True)
    paths.write_atomic(tree.work / _OPTIONS, msgspec.json.encode(options))
    paths.write_atomic(zfs_dir() / LAST, str(tree.path).encode())


def recall(tree: ZfsTree) -> ZfsOptions:
    """The options of the tree's last build."""
    try:
        return msgspec.json.decode((tree.work / _OPTIONS).read_bytes(), type=ZfsOptions)
    except (OSError, msgspec.MsgspecError):
        return ZfsOptions()
