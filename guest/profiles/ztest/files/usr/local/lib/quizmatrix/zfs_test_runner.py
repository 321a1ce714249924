"""Runs OpenZFS's test runner (test-runner.py) in a guest, and makes two changes to it.

- Time limits, which are made for hardware, are multiplied by QUIZMATRIX_TIMEOUT_FACTOR.
- QUIZMATRIX_RUNNING names a file that has the path of the test that is running, and below it the end of what
  that test has printed so far. The runner itself keeps the output in memory until the test has ended, so that
  nothing of it would be left where the kernel panics. The file is gone when the test has ended.

QUIZMATRIX_TEST_RUNNER is the runner; a version in which this does not find its place runs unchanged. Python's
standard library (3.10 or later) is all that it needs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import IO, Any

# Of a test's output at most this many bytes are in the file; it begins anew where there are more.
MOST = 1 << 20


class Running:
    """The file about the test that is running. Where it cannot be written, the tests run all the same."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._name = b""

    def begin(self, test: str) -> None:
        """A test begins."""
        self.end()
        self._name = os.fsencode(test) + b"\n"
        with contextlib.suppress(OSError):
            # Unbuffered: what is printed has to be on the host when the kernel panics.
            self._file = Path(self._path).open("wb", buffering=0)  # noqa: SIM115
            self._file.write(self._name)

    def add(self, lines: list[bytes]) -> None:
        """It has printed these lines."""
        if self._file is None or not lines:
            return
        with contextlib.suppress(OSError):
            if self._file.tell() > MOST:
                self._file.seek(0)
                self._file.truncate()
                self._file.write(self._name)
            self._file.write(b"".join(line + b"\n" for line in lines))

    def end(self) -> None:
        """It has ended."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                Path(self._path).unlink()


def scaled(limit: str | float, factor: float) -> int:
    """A test's time limit in seconds; 0 means none."""
    return int(int(limit) * factor)


def adapt(runner: ModuleType, factor: float, running: Running) -> None:
    """Make the changes. Raises AttributeError where the runner is not as it is known."""
    command: Any = runner.Cmd
    output: Any = runner.Output
    run, read = command.run, output._read

    def run_test(self: Any, *arguments: Any, **options: Any) -> Any:
        # A test that is run again after its limit, since the machine slept, comes through here twice.
        if not hasattr(self, "has_scaled_limit"):
            self.has_scaled_limit = True
            self.timeout = scaled(self.timeout, factor)
        running.begin(self.pathname)
        try:
            return run(self, *arguments, **options)
        finally:
            running.end()

    def read_some(self: Any) -> Any:
        before = len(self.lines)
        found = read(self)
        running.add([line for _, line in self.lines[before:]])
        return found

    command.run = run_test
    output._read = read_some


def load(path: str) -> ModuleType:
    """The runner as a module."""
    spec = importlib.util.spec_from_file_location("test_runner", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """What the module says."""
    path = os.environ["QUIZMATRIX_TEST_RUNNER"]
    # The folder of the runner may be read-only, and is not ours to write to.
    sys.dont_write_bytecode = True
    try:
        factor = float(os.environ.get("QUIZMATRIX_TIMEOUT_FACTOR") or 1)
        runner = load(path)
        adapt(runner, factor, Running(os.environ.get("QUIZMATRIX_RUNNING") or os.devnull))
        begin = runner.main
    except (AttributeError, ImportError, SyntaxError, ValueError) as error:
        print(f"zfs-tests.sh: its test runner runs unchanged ({error})", file=sys.stderr)
        os.execv(sys.executable, [sys.executable, path, *sys.argv[1:]])  # noqa: S606
    sys.argv[0] = path
    begin()


if __name__ == "__main__":
    main()
