"""The command line. It is the only place that turns errors into exit statuses."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

from quizmatrix.core.errors import QuizmatrixError, ReaderGoneError, host_error
from quizmatrix.model.outcome import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, EXIT_NO_VERDICT

# Commands whose guests may be begun before all else is imported.
_RUN_GUESTS = ("run", "shell")

# New objects after which Python looks for those that nobody needs any more; by default, 700.
_OBJECTS = 50_000


def main() -> None:
    """Run the program and exit."""
    # Imports make a hundred thousand objects that stay. To look among them for rubbish takes a twentieth of
    # the time that they take.
    gc.set_threshold(_OBJECTS)
    _open_closed_streams()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Handled like Ctrl-C, so that incomplete files are removed.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    _begin(sys.argv[1:])
    # The head start need not wait for this import.
    from quizmatrix.core import streams

    streams.install()
    status = run_command(sys.argv[1:])
    try:
        sys.stdout.flush()
    except (OSError, ReaderGoneError):
        # The reader of our output is gone.
        status = status or EXIT_BROKEN_PIPE
    with contextlib.suppress(OSError, ReaderGoneError):
        sys.stderr.flush()
    if (headstart := sys.modules.get("quizmatrix.run.headstart")) is not None:
        with contextlib.suppress(OSError):
            headstart.end()
    # Not sys.exit(): that tears down all modules, which takes a fiftieth of a second, and waits for threads,
    # even for one that writes to a pipe that nobody reads.
    os._exit(status)


def _begin(argv: list[str]) -> None:
    """Give the guest of a run its head start."""
    if not argv or argv[0] not in _RUN_GUESTS:
        return
    try:
        from quizmatrix.run import headstart

        headstart.begin(argv)
    except KeyboardInterrupt:
        os._exit(EXIT_INTERRUPTED)


def _open_closed_streams() -> None:
    """Open /dev/null as stdin, stdout or stderr, if one was closed when this process started.

    Else the next opened file would get its descriptor, and output would be written to that file.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8"))


def run_command(argv: list[str]) -> int:
    """Run one command line; returns its exit status."""
    status = _run(argv)
    ours = argv[: argv.index("--")] if "--" in argv else argv
    paths = sys.modules.get("quizmatrix.core.paths")
    if paths is not None and not {"-q", "--quiet"}.intersection(ours):
        for note in paths.without_locks():
            with contextlib.suppress(OSError):
                print(f"quizmatrix: {note}", file=sys.stderr, flush=True)
    return status


def _run(argv: list[str]) -> int:
    from quizmatrix.cli.parser import parse

    try:
        args = parse(argv)
        with _cache_in_use() if args.uses_cache else contextlib.nullcontext():
            status: int = args.handler(args)
    except QuizmatrixError as error:
        return _print_error(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (BrokenPipeError, ReaderGoneError):
        return EXIT_BROKEN_PIPE
    except OSError as error:
        # An unforeseen error with a path: it is too long, or may not be read.
        return _print_error(host_error("go on", error))
    except SystemExit as leave:  # argparse exits like this after --help and --version
        return int(leave.code or 0)
    except Exception:
        # A bug is no verdict on a kernel, so the status must not be the 1 with which Python would exit.
        import traceback

        with contextlib.suppress(OSError, ReaderGoneError):
            traceback.print_exc()
            print("quizmatrix: internal error: please report the lines above", file=sys.stderr)
        return EXIT_NO_VERDICT
    return status


def _cache_in_use() -> contextlib.AbstractContextManager[None]:
    from quizmatrix.core import uses

    return uses.using_cache(lambda text: print(f"quizmatrix: {text}", file=sys.stderr))


def _print_error(error: QuizmatrixError) -> int:
    from quizmatrix.core.text import clean_detail

    # The name of a file, or a key in a matrix, may contain escape sequences.
    lines = [clean_detail(line) for line in f"quizmatrix: {error.render()}".splitlines()]
    with contextlib.suppress(OSError, ReaderGoneError):
        print("\n".join(lines), file=sys.stderr, flush=True)
    return EXIT_NO_VERDICT
