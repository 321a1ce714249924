"""Builds what later tests need while the first ones run, which leave half of a small host idle.

`python -m tests.vm.background STEP...`. A test that comes before its step has ended waits for it, or builds
the rest itself; so a step that fails here fails there, too, and is told there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.openzfs import source_tree

# The kernels that are built here, the Debian images, and OpenZFS for two kernels: each takes minutes.
STEPS: dict[str, list[str]] = {
    "x86_64": ["kernel", "build", "debian-source:6.1", "-a", "x86_64"],
    "images": ["prepare", "--only", "6.1-x86_64,6.1-s390x", "--image", "debian"],
    "ppc64": ["kernel", "build", "debian-source:6.12", "-a", "ppc64"],
    "zfs": ["zfs", "build", "--only", "debian-source:6.1-x86_64,6.1-s390x"],
}
# The files with tests that need them. They come last, in the order of the steps.
NEEDS: dict[str, str] = {
    "test_bisect": "x86_64",
    "test_kernel_tests": "x86_64",
    "test_module": "ppc64",
    "test_module_symbols": "x86_64",
    "test_native": "x86_64",
    "test_repeat": "x86_64",
    "test_cgroup": "images",
    "test_image": "images",
    "test_in_use": "images",
    "test_provided": "images",
    "test_suites": "images",
    "test_built": "ppc64",
    "test_clock": "ppc64",
    "test_hang": "ppc64",
    "test_injected": "ppc64",
    "test_warm": "ppc64",
    "test_zfs": "zfs",
    "test_zfs_bisect": "zfs",
    "test_zfs_trees": "zfs",
}
# It needs a host on which nobody else makes templates.
LAST = "test_injected"


def rank(file: str) -> int:
    """The place of a file's tests among all. file: its name without `.py`."""
    if file == LAST:
        return len(STEPS) + 1
    return [*STEPS].index(NEEDS[file]) + 1 if file in NEEDS else 0


def start(files: Iterable[str]) -> subprocess.Popen[bytes] | None:
    """Begin to build what the tests in `files` need, if others come before them."""
    needed = {NEEDS[file] for file in files if file in NEEDS}
    if not needed or all(file in NEEDS for file in files):
        return None
    argv = ["nice", "-n", "10", sys.executable, "-m", "tests.vm.background"]
    return subprocess.Popen(
        [*argv, *(step for step in STEPS if step in needed)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(started: subprocess.Popen[bytes]) -> None:
    """End it, if it is still building."""
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGTERM)
    started.wait()


def main(steps: list[str]) -> None:
    """Take the steps, one after the other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for step in steps:
        folder = Path.cwd()
        if step == "zfs":
            with tempfile.TemporaryDirectory() as scratch:
                folder = source_tree(Path(scratch))
        subprocess.run([sys.executable, "-m", "quizmatrix", *STEPS[step]], cwd=folder, check=False)


if __name__ == "__main__":
    main(sys.argv[1:])
