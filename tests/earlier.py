"""Unpacks files that an earlier quizmatrix wrote into a test's folder."""

import os
import shutil
import sqlite3
from pathlib import Path

FIXTURE = Path(__file__).parent / "fixtures/1795248"
MADE_IN = "/tmp/quizmatrix-1795248"

# The first two runs are of the same command; the third was killed.
PASSED, FAILED, KILLED = "20261128-182856-e1c2", "20261128-182911-ee52", "20261128-182925-0f44"


def copy_to(root: Path) -> dict[str, str]:
    """Copy all files to `root`, with their paths adapted; returns the environment that names them."""
    shutil.copytree(FIXTURE, root, symlinks=True)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".sqlite":
            path.write_bytes(path.read_bytes().replace(MADE_IN.encode(), os.fsencode(root)))
    # The history contains paths, too.
    with sqlite3.connect(root / "state/history.sqlite") as connection:
        for column in ("place", "matrix", "folder"):
            connection.execute(f"UPDATE runs SET {column} = replace({column}, ?, ?)", [MADE_IN, str(root)])  # noqa: S608
    connection.close()
    return {
        "QUIZMATRIX_STATE_DIR": str(root / "state"),
        "QUIZMATRIX_CONFIG_DIR": str(root / "config"),
        "XDG_DATA_HOME": str(root / "data"),
        "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        # The crontab's times are local.
        "TZ": "UTC",
    }
