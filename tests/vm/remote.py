"""Runs in a guest (see test_cgroup): the history on a network file system, for which 9p stands in."""

import subprocess
import sys

from quizmatrix.core import filesystem, paths
from quizmatrix.runs.history import database

WRITE = """
import sys
from quizmatrix.runs.history import database
for number in range(20):
    with database.connected() as connection, database.writing(connection):
        connection.execute("INSERT INTO names (name) VALUES (?)", (f"{sys.argv[1]} {number}",))
"""

paths.state_dir().mkdir(parents=True)
assert filesystem.is_remote(paths.state_dir())
with database.connected() as connection:
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
writers = [subprocess.Popen([sys.executable, "-c", WRITE, name]) for name in ("a", "b")]
assert [writer.wait() for writer in writers] == [0, 0]
with database.connected() as connection:
    assert connection.execute("SELECT count(*) FROM names").fetchone() == (40,)
assert not paths.without_locks()
print("on a server")
