"""The ./configure options of an OpenZFS tree, saved by `zfs configure` and used by later builds."""

from __future__ import annotations

import msgspec

from quizmatrix.build.zfs.tree import LAST, ZfsTree, zfs_dir
from quizmatrix.core import paths

# In a tree's folder of builds: how it was built last.
_OPTIONS = "options.json"


class ZfsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is built otherwise than by default.

    debug: with OpenZFS's own assertions, and symbols. experimental: for kernels too that are newer than
    its META knows. configure: further arguments of ./configure.
    """

    debug: bool = False
    experimental: bool = False
    configure: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """What ./configure is given for them."""
        debug = ["--enable-debug", "--enable-debuginfo"] if self.debug else []
        return [*debug, *(["--enable-linux-experimental"] if self.experimental else []), *self.configure]


def remember(tree: ZfsTree, options: ZfsOptions) -> None:
    """Have later steps, and builds on the way, done with these options."""
    tree.work.mkdir(parents=True, exist_ok=True)
    paths.write_atomic(tree.work / _OPTIONS, msgspec.json.encode(options))
    paths.write_atomic(zfs_dir() / LAST, str(tree.path).encode())


def recall(tree: ZfsTree) -> ZfsOptions:
    """The options of the tree's last build."""
    try:
        return msgspec.json.decode((tree.work / _OPTIONS).read_bytes(), type=ZfsOptions)
    except (OSError, msgspec.MsgspecError):
        return ZfsOptions()
